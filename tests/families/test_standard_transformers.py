"""Standard transformers: their own layout to weights and back, and the half blocks of the forward pass."""

import dataclasses
import json

import pytest
import torch

from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.training.config import spec_from_json
from nfn_transformer.weights.standard_pass import embed, half_blocks, outputs_of, standard_outputs
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import count_parameters, standard_shapes

BIASES = ("b_Q", "b_K", "b_V", "b_O", "b_1", "b_G", "b_2", "head.0.bias")
SPECS = {
    "ViT": StandardTransformerSpec(
        *(16, 2, 4, 4, 4, 4, 24),
        **{"channels": 1, "patch": (4, 2), "image": (8, 8), "prefix": (1, 2), "position_rows": 11},
        head_sizes=(16, 10),
    ),
    "BERT": StandardTransformerSpec(
        *(16, 2, 4, 4, 4, 4, 24),
        **{"placement": "post", "inputs": "words", "vocabulary": 20, "token_types": 2, "position_rows": 9},
        **{"embedding_norm": True, "final_norm": "none", "head_sizes": (16, 16, 3), "head_norm": True},
        head_activations=("tanh", "none"),
    ),
    "Llama": StandardTransformerSpec(
        *(16, 2, 4, 2, 4, 4, 24),
        **{"norm": "rms", "activation": "silu", "gated": True, "causal": True, "inputs": "words", "vocabulary": 20},
        **{"positions": "rope", "pooling": "none", "head_sizes": (16, 20), "tied": True, "absent": BIASES},
    ),
    "vectors": StandardTransformerSpec(
        *(16, 2, 4, 4, 4, 4, 24),
        **{"inputs": "vectors", "features": 5, "positions": "sinusoidal", "activation": "relu", "pooling": "last"},
        **{"final_norm": "after_pooling", "head_sizes": (16, 7)},
    ),
    "SimpleViT": StandardTransformerSpec(
        *(16, 2, 4, 4, 3, 5, 24),
        **{"channels": 3, "patch": (4, 4), "positions": "sinusoidal_2d", "pooling": "mean", "head_sizes": (16, 10)},
        **{"patch_norm": True, "embedding_norm": True, "embedding_mix": True, "absent": BIASES[:4]},
    ),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_networks_of_every_kind_are_read_run_and_written_back(spec):
    torch.manual_seed(0)
    family = FAMILIES[spec.family]
    state = {key: torch.randn(3, *shape, dtype=torch.float64) for key, shape in family.shapes(spec).items()}
    weights = family.weights(state, spec)
    weights.check(spec)
    written = family.state_dict(weights)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    assert sum(tensor[0].numel() for part in weights.trained_parts for tensor in part.tensors()) == count_parameters(
        spec
    )
    assert spec_from_json(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec

    inputs = {
        "patches": torch.randn(4, spec.channels, 8, 8, dtype=torch.float64),
        "words": torch.arange(12).view(2, 6),
        "vectors": torch.randn(2, 6, 5, dtype=torch.float64),
    }[spec.inputs]
    outputs = standard_outputs(inputs, weights)
    together = standard_outputs(inputs, weights[1:2])
    torch.testing.assert_close(outputs[1:2], together, rtol=1e-12, atol=1e-12)
    halves = list(half_blocks(embed(inputs, weights), weights))
    assert [half.is_attention for half in halves] == [True, False] * spec.blocks
    assert torch.equal(outputs_of(halves[-1].after, weights), outputs)
    if spec.causal:  # the last word is seen by none before it
        other = torch.cat([inputs[:, :-1], inputs[:, -1:] + 1], dim=1)
        assert torch.equal(standard_outputs(other, weights)[:, :, :-1], outputs[:, :, :-1])


@pytest.mark.parametrize("word", [-1, 20])
def test_a_word_that_networks_lack_is_no_word_of_another_network(word):
    shapes = standard_shapes(SPECS["Llama"])
    weights = FAMILIES[StandardTransformerSpec.family].weights(
        {k: torch.ones(2, *s) for k, s in shapes.items()}, SPECS["Llama"]
    )
    with pytest.raises(SpecError, match=r"words from .*, expected 0 to 19"):
        standard_outputs(torch.tensor([[3, word]]), weights)
