"""The zoo's own networks, as plain functions of weights."""
