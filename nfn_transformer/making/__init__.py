"""Training populations of small transformers, many networks at once, into a zoo in the release's layout."""
