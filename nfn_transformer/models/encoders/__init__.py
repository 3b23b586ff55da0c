"""Encoders, one file each: what reads the blocks of a network, or the whole of it."""
