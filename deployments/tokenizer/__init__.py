"""Text and tokens: chat templates, offsets, what the model thinks of every token."""
