"""Model instances made over the API: their definitions, states and lifecycle."""
