"""Training populations of small vision transformers, many networks at once, into a zoo in the release's layout."""
