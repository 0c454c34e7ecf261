"""The Ray Serve deployment graph: `app.py` wires it, each folder is one deployment."""
