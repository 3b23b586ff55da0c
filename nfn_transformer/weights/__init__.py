"""What a transformer's weights are: specs, containers, checkpoints, and the group that acts on them."""
