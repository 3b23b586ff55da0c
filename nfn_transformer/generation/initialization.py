"""Initial weights of a zoo's networks."""

import torch
from torch import Generator, Tensor
from torch.nn.init import trunc_normal_

from nfn_transformer.weights.forward import positional_encoding
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.weights.state_dicts import state_dict_shapes

POSITION_KEY = "embedding.pos_embedding"
"""Key of the positional encoding, which is not trained."""


def initial_state(spec: TransformerSpec, std: float, generator: Generator) -> dict[str, Tensor]:
    """Return a new network's state dict: weights normal and cut off at two `std`, biases zero, positions encoded."""
    state = {}
    for key, shape in state_dict_shapes(spec).items():
        if key == POSITION_KEY:
            state[key] = positional_encoding(*shape)
        elif key.endswith(".bias"):
            state[key] = torch.zeros(shape)
        else:
            state[key] = trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std, generator=generator)
    return state
