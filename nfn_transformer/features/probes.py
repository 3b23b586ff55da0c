"""Synthetic inputs for networks of a spec: the same ones for every network, made of random numbers and of no data.

No symmetry of a network's weights changes its answers to these inputs.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.forward import embed_patches, embed_words, patches
from nfn_transformer.weights.spec import EmbeddingSpec, TransformerSpec

PROBES = 48
"""Inputs in a family."""

# Smooth random images: cells of the coarse grid of normal numbers, the level that parts dark from bright, sharpness.
_BLOBS = ((4, 0.3, 3.0), (5, 0.6, 8.0), (7, 0.6, 8.0))
# Texts: tokens, words of a made-up vocabulary, and the shares of a text that are words rather than padding.
TEXT_TOKENS, _WORDS, _FILLED = 16, 200, (1.0, 0.6, 0.3)


def probe_tokens(weights: TransformerWeights, spec: TransformerSpec) -> list[Tensor]:
    """Return the embedded tokens [b or 1, PROBES, tokens, D] of each family of probes."""
    like = weights.blocks[0].W_A
    if weights.embedding is None or spec.embedding is None:
        texts = random_texts(spec.blocks[0].width)
        return [embed_words(family.to(like))[None] for family in texts]
    images = (patches(family.to(like)[None], spec.embedding.patch) for family in _images(spec.embedding))
    return [embed_patches(tokens, weights.embedding) for tokens in images]


def family_names(spec: TransformerSpec) -> list[str]:
    """Return the name of each family: blobs by their cells, and noise; texts by the percentage that is words."""
    if spec.embedding is None:
        return [f"texts{round(100 * share)}" for share in _FILLED]
    return [*(f"blobs{cells}" for cells, *_ in _BLOBS), "noise"]


@lru_cache(maxsize=4)
def _images(spec: EmbeddingSpec) -> list[Tensor]:
    """Return the families of `random_images` for transformers of a spec."""
    return random_images(spec.channels, size_of_images(spec))


def size_of_images(spec: EmbeddingSpec) -> tuple[int, int]:
    """Return height and width of the images that an embedding cuts into its tokens.

    The spec leaves open how tokens lie: as near to a square as their number allows.
    """
    rows = max(count for count in range(1, int(spec.tokens**0.5) + 1) if spec.tokens % count == 0)
    return rows * spec.patch[0], spec.tokens // rows * spec.patch[1]


def random_images(channels: int, size: tuple[int, int]) -> list[Tensor]:
    """Return families of images [PROBES, channels, height, width] in [-1, 1]: blobs of several sizes, and noise."""
    blobs = []
    for cells, level, sharpness in _BLOBS:
        coarse = torch.randn(PROBES, channels, cells, cells, generator=make_generator(0, "probes", cells))
        smooth = F.interpolate(coarse, size=size, mode="bicubic", align_corners=True)
        blobs.append(torch.tanh(sharpness * (smooth - level)))
    noise = torch.rand(PROBES, channels, *size, generator=make_generator(0, "probes", "noise"))
    return [*blobs, 2 * noise - 1]


@lru_cache(maxsize=4)
def random_texts(width: int) -> list[Tensor]:
    """Return families of texts [PROBES, tokens, D]: word vectors, frequent ones more often, and padding."""
    generator = make_generator(0, "probes", "texts")
    vectors = torch.randn(_WORDS, width, generator=generator)
    frequencies = 1 / torch.arange(1.0, _WORDS + 1)
    families = []
    for share in _FILLED:
        indices = torch.multinomial(frequencies, PROBES * TEXT_TOKENS, replacement=True, generator=generator)
        texts = vectors[indices].view(PROBES, TEXT_TOKENS, width)
        texts[:, max(1, round(share * TEXT_TOKENS)) :] = 0
        families.append(texts)
    return families
