"""Transformers of the Small-Transformer-Zoo, without residual connections (arXiv 2410.04209)."""

from collections.abc import Mapping
from typing import Any

from nfn_transformer.families.registry import FAMILIES, Family
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec
from nfn_transformer.weights.state_dicts import (
    spec_from_shapes,
    state_dict_from_weights,
    state_dict_shapes,
    weights_from_state_dict,
)

DEFAULT_HEADS = 2
"""Attention heads of networks of which nothing tells them: those of the released zoos."""


def _spec_from_json(values: Mapping[str, Any]) -> TransformerSpec:
    embedding = values["embedding"]
    if embedding is not None:
        embedding = EmbeddingSpec(**{**embedding, "patch": tuple(embedding["patch"])})
    blocks = tuple(BlockSpec(**block) for block in values["blocks"])
    return TransformerSpec(blocks, FeedForwardSpec(tuple(values["classifier"]["sizes"])), embedding)


FAMILIES.update(
    zoo_transformer=Family(
        name=TransformerSpec.family,
        description="transformers of the Small-Transformer-Zoo, without residual connections",
        spec_from_shapes=lambda shapes, facts: spec_from_shapes(shapes, facts.get("heads", DEFAULT_HEADS)),
        shapes=state_dict_shapes,
        weights=weights_from_state_dict,
        state_dict=state_dict_from_weights,
        spec_from_json=_spec_from_json,
        listed_facts=("heads",),
        probe_inputs="nfn_transformer.features.transformer_answers:transformer_probe_inputs",
        logits="nfn_transformer.features.transformer_answers:transformer_logits",
    )
)
