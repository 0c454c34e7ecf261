"""Guided decoding: a pool of processes that compile constraints, outside of any engine."""
