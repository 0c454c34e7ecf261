"""Endpoints, one module per family."""
