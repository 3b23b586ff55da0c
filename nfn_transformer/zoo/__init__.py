"""From the files of a zoo to tensors: sources, metadata, checkpoints, faults, cache and split."""
