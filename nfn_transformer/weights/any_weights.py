"""Weights of networks of any family."""

from nfn_transformer.weights.containers import NetworkWeights, TransformerWeights
from nfn_transformer.weights.standard_containers import StandardTransformerWeights

Weights = TransformerWeights | NetworkWeights | StandardTransformerWeights
"""Weights of b whole networks of one spec, of any family."""
