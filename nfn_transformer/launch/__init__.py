"""Distributed and cluster jobs that other commands start."""
