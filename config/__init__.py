"""Settings of the graph, the demo model, and example configurations for clusters."""
