"""Inputs of the baselines: flattened weights and statistics of weights."""
