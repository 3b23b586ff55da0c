"""Maps between weight spaces that commute with the symmetry group, or are invariant to it."""
