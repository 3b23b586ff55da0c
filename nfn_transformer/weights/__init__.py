"""What weights are: sizes, containers, state dicts and back, forward passes."""
