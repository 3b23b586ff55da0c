"""Processes and cluster jobs that other commands start."""
