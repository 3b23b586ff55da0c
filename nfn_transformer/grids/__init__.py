"""Grids of runs: described in a file, run as cells on one machine or a cluster, ended in a table."""
