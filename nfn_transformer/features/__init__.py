"""Views of weights that have no parameters: flat vectors, statistics, invariants, probes, graphs."""
