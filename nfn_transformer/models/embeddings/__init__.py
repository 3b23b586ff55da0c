"""Embedding branches, one file each: what reads the embedding of a network."""
