"""Bodies and queries of our own routes."""
