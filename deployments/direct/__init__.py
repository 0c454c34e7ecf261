"""The direct data plane: an engine's replica that answers HTTP itself, with the gateway's policy in it."""
