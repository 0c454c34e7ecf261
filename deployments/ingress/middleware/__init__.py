"""Policy as pure ASGI middleware: no FastAPI, no Ray, usable in front of any ASGI application."""
