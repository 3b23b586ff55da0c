"""Groups that act on weights: elements that act, compose and invert."""
