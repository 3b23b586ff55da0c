"""From the files of a zoo to tensors: release, metadata, checkpoints, faults, cache and split."""
