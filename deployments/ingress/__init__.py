"""The HTTP front: routes by model, forwards bytes."""
