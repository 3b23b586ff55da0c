"""Encoders of the blocks of a network or of the whole network, one file each."""
