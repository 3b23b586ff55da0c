"""Random standard transformers of every kind, and inputs for them."""

from dataclasses import replace

import torch
from torch import Tensor

from nfn_transformer.weights.standard_containers import StandardTransformerWeights
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import standard_shapes, standard_weights

_SIZES = {"width": 8, "blocks": 2, "heads": 4, "groups": 4, "key": 4, "value": 3, "hidden": 6}
_IMAGES = {"inputs": "patches", "channels": 1, "patch": (2, 2), "image": (4, 6)}
_WORDS = {"inputs": "words", "vocabulary": 11}

VIT = StandardTransformerSpec(**_SIZES, **_IMAGES, prefix=(1,), position_rows=7, head_sizes=(8, 3))
STANDARD_SPECS = {
    "vit": VIT,
    "simple vit": replace(
        VIT,
        **{"prefix": (), "positions": "sinusoidal_2d", "position_rows": 0, "patch_norm": True, "embedding_norm": True},
        **{"pooling": "mean", "head_sizes": (8, 7, 5, 3), "head_activations": ("tanh", "relu", "none")},
    ),
    "relu, no final norm": replace(VIT, activation="relu", final_norm="none", pooling="mean"),
    "gpt": StandardTransformerSpec(
        **_SIZES,
        **_WORDS,
        **{"position_rows": 9, "causal": True, "pooling": "none", "head_sizes": (8, 11), "tied": True},
        **{"activation": "gelu_tanh", "absent": ("head.0.bias", "b_O")},
    ),
    "llama": StandardTransformerSpec(
        **{**_SIZES, "groups": 2},
        **_WORDS,
        **{"norm": "rms", "positions": "rope", "causal": True, "gated": True, "activation": "silu", "pooling": "last"},
        **{"head_sizes": (8, 3), "absent": ("b_O", "b_1", "b_2", "b_G", "head.0.bias")},
    ),
    "rms with embedding norm": StandardTransformerSpec(
        **_SIZES,
        **_WORDS,
        **{"norm": "rms", "positions": "sinusoidal", "embedding_norm": True, "final_norm": "after_pooling"},
        **{"pooling": "mean", "head_sizes": (8, 5, 3), "head_activations": ("gelu", "none"), "head_norm": True},
    ),
    "bert": StandardTransformerSpec(
        **_SIZES,
        **_WORDS,
        **{"placement": "post", "token_types": 2, "position_rows": 9, "embedding_norm": True, "final_norm": "none"},
        **{"head_sizes": (8, 8, 3), "head_activations": ("tanh", "none")},
    ),
    "post-norm of vectors": StandardTransformerSpec(
        **_SIZES,
        **{"placement": "post", "inputs": "vectors", "features": 5, "positions": "sinusoidal", "activation": "relu"},
        **{"pooling": "mean", "head_sizes": (8, 3)},
    ),
    "rms post-norm": StandardTransformerSpec(
        **_SIZES, **_WORDS, norm="rms", placement="post", positions="none", final_norm="none", head_sizes=(8, 3)
    ),
    "encoder alone": StandardTransformerSpec(
        **_SIZES, placement="post", inputs="stream", positions="none", final_norm="none", pooling="mean"
    ),
}
"""Spec of each kind."""


def random_standard(
    spec: StandardTransformerSpec, batch: int, generator: torch.Generator
) -> StandardTransformerWeights:
    """Networks in float64 with random gains, shifts and biases."""
    state = {}
    for key, shape in standard_shapes(spec).items():
        state[key] = torch.randn(batch, *shape, generator=generator, dtype=torch.float64) * 0.5
        if "gain" in key:
            state[key] += 1.5 * state[key].sign()
    return standard_weights(state, spec)


def inputs_of(spec: StandardTransformerSpec, count: int = 5, tokens: int = 6) -> Tensor:
    """Some inputs for networks of a spec."""
    generator = torch.Generator().manual_seed(1)
    if spec.inputs == "words":
        return torch.randint(spec.vocabulary, (count, tokens), generator=generator)
    shape = (spec.channels, *spec.image) if spec.inputs == "patches" else (tokens, spec.features or spec.width)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)
