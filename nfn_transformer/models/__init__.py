"""The predictor: encoder, classifier and embedding branches, and the head that joins them."""
