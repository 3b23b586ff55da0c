"""Synthetic inputs for standard transformers: the same ones for every network of a spec, made of no data.

Images are random blobs and noise, as those of `features.probes`. Texts are words at random: any words, a few of them,
or a text and its repetition. Other networks read random vectors: independent ones, or one for each input and a little
more.
"""

from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor

from nfn_transformer.features.probes import random_images
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

_IMAGE = 28
_TOKENS_AT_ONCE, _FEWEST, _MOST = 1200, 8, 32
_WIDE = 256
_TEXT_TOKENS, _VECTOR_TOKENS, _FEW_WORDS = 32, 16, 4

PROBE_FAMILIES = {
    "patches": ("blobs4", "blobs5", "blobs7", "noise"),
    "words": ("random", "few", "repeated"),
    "vectors": ("independent", "steady"),
    "stream": ("independent", "steady"),
}
"""Inputs of networks -> names of the families of their probes."""


@lru_cache(maxsize=4)
def standard_probes(spec: StandardTransformerSpec, texts: int | None = None) -> dict[str, Tensor]:
    """Return the families of inputs by name: images [n, channels, height, width], words [n, t] or vectors [n, t, f].

    The more tokens an input of an image has, the fewer images there are. Wide networks read half as many texts,
    unless `texts` tells their number.
    """
    if spec.inputs == "patches":
        height, width = image_size(spec)
        images = random_images(spec.channels, (height, width))
        count = _count(height // spec.patch[0] * (width // spec.patch[1]))
        return {name: family[:count] for name, family in zip(PROBE_FAMILIES["patches"], images, strict=True)}
    tokens = _tokens(spec)
    count = texts or (_MOST if spec.width <= _WIDE else _MOST // 2)
    generator = make_generator(0, "probes", spec.inputs)
    if spec.inputs == "words":
        words = random_words(spec, count, generator)
        places = torch.randint(_FEW_WORDS, (count, tokens), generator=generator).clamp(max=tokens - 1)
        half = (tokens + 1) // 2
        repeated = torch.cat([words[:, :half], words[:, : tokens - half]], dim=1)
        return {"random": words, "few": words.gather(1, places), "repeated": repeated}
    size = spec.features if spec.inputs == "vectors" else spec.width
    vectors = torch.randn(count, tokens, size, generator=generator)
    return {"independent": vectors, "steady": (vectors[:, :1] + vectors / 4) / (1 + 1 / 16) ** 0.5}


def random_words(spec: StandardTransformerSpec, m: int, generator: torch.Generator) -> Int64[Tensor, "m tokens"]:
    """Return texts of random words, each of the vocabulary as often."""
    return (torch.rand(m, _tokens(spec), generator=generator) * spec.vocabulary).long()


def _tokens(spec: StandardTransformerSpec) -> int:
    """Return the tokens of a text or of an input of vectors: as many as there are positions for, up to a bound."""
    tokens = _TEXT_TOKENS if spec.inputs == "words" else _VECTOR_TOKENS
    if not spec.position_rows:
        return tokens
    on_prefix = spec.prefix_tokens if spec.positions_on_prefix else 0
    return max(1, min(tokens, spec.position_rows - spec.position_offset - on_prefix))


def image_size(spec: StandardTransformerSpec) -> tuple[int, int]:
    """Return the height and width of images for networks of a spec: as near to a square as its positions allow."""
    if spec.image != (0, 0):
        return spec.image
    rows, columns = (max(2, round(_IMAGE / side)) for side in spec.patch)
    if spec.position_rows:
        on_prefix = spec.prefix_tokens if spec.positions_on_prefix else 0
        tokens = max(1, spec.position_rows - spec.position_offset - on_prefix)
        rows = max(count for count in range(1, int(tokens**0.5) + 1) if tokens % count == 0)
        columns = tokens // rows
    return rows * spec.patch[0], columns * spec.patch[1]


def _count(tokens: int) -> int:
    return max(_FEWEST, min(_MOST, _TOKENS_AT_ONCE // max(1, tokens)))
