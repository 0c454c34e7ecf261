"""One engine replica: vLLM, or a fake, behind the same ASGI surface."""
