"""Training: the loop, its step, batches, evaluation, and the run directory."""
