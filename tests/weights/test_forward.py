"""The batched forward pass against a plain one for one network, written with PyTorch's own layers."""

import torch
import torch.nn.functional as F
from symmetry import random_transformer

from nfn_transformer import (
    BlockSpec,
    EmbeddingSpec,
    FeedForwardSpec,
    TransformerSpec,
    image_logits,
    state_dict_from_weights,
)
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.weights.forward import embed_words, logits_from_tokens, patches, positional_encoding

BLOCKS = (BlockSpec(2, 8, 3, 2, 5), BlockSpec(2, 8, 4, 4, 6))
SPEC = TransformerSpec(BLOCKS, FeedForwardSpec((8, 7, 4)), EmbeddingSpec(2, 8, (2, 3), 6))


def plain_block(x, state, prefix, heads):
    """One block on tokens [n, T, D] by `F.linear` on the checkpoint's own tensors."""
    x = F.layer_norm(x, x.shape[-1:])
    q, k, v = (
        F.linear(x, state[f"{prefix}attention.{name}.weight"]).unflatten(-1, (heads, -1)).transpose(1, 2)
        for name in ("queries", "keys", "values")
    )
    scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = F.linear(mixed, state[prefix + "attention.out_projection.weight"])
    x = F.layer_norm(x, x.shape[-1:])
    hidden = F.linear(x, state[prefix + "fc1.weight"], state[prefix + "fc1.bias"]).relu()
    return F.linear(hidden, state[prefix + "fc2.weight"], state[prefix + "fc2.bias"])


def plain_logits(x, state, spec):
    for index, block in enumerate(spec.blocks):
        x = plain_block(x, state, f"encoder.{index}.", block.heads)
    x = F.layer_norm(x, x.shape[-1:]).mean(1)
    x = F.linear(x, state["classifier.fc1.weight"], state["classifier.fc1.bias"]).relu()
    return F.linear(x, state["classifier.fc2.weight"], state["classifier.fc2.bias"])


def network(state, index):
    return {key: tensor[index] for key, tensor in state.items()}


def test_image_networks(generator):
    weights = random_transformer(SPEC, 3, generator)
    images = torch.randn(3, 5, 2, 4, 9, generator=generator, dtype=torch.float64)
    state = state_dict_from_weights(weights)
    found = image_logits(images, weights)
    for index in range(3):
        one = network(state, index)
        conv = F.conv2d(images[index], one["embedding.conv1.weight"], one["embedding.conv1.bias"], stride=(2, 3))
        tokens = conv.flatten(2).transpose(1, 2) + one["embedding.pos_embedding"]
        assert relative_error(found[index], plain_logits(tokens, one, SPEC)) < 1e-9
    shared = image_logits(images[:1], weights)
    assert relative_error(shared[0], found[0]) < 1e-12
    assert relative_error(shared[2], image_logits(images[:1], weights[2:])[0]) < 1e-12


def test_text_networks(generator):
    spec = TransformerSpec(BLOCKS, FeedForwardSpec((8, 7, 4)))
    weights = random_transformer(spec, 2, generator)
    words = torch.randn(1, 5, 6, 8, generator=generator, dtype=torch.float64)
    found = logits_from_tokens(embed_words(words), weights)
    tokens = words[0] + positional_encoding(6, 8)
    for index in range(2):
        assert (
            relative_error(found[index], plain_logits(tokens, network(state_dict_from_weights(weights), index), spec))
            < 1e-9
        )


def test_patches_run_row_by_row():
    image = torch.arange(24.0).view(1, 4, 6)
    assert patches(image, (2, 3)).tolist() == [
        [0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11], [12, 13, 14, 18, 19, 20], [15, 16, 17, 21, 22, 23],
    ]  # fmt: skip


def test_positional_encoding_has_known_values():
    encoding = positional_encoding(3, 4)
    position, low = torch.tensor(2.0), torch.tensor(2.0 / 100)
    assert torch.allclose(encoding[2], torch.stack([position.sin(), position.cos(), low.sin(), low.cos()]))
    assert positional_encoding(2, 5).shape == (2, 5)
