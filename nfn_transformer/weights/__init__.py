"""Weights of neural networks: sizes, containers, state dicts and back, forward passes."""
