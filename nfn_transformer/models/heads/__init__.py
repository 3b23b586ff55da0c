"""Classifier heads, one file each: what reads the classifier of a network."""
