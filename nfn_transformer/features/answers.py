"""Fixed inputs that all classifiers of a spec are asked about, and how networks of a family answer them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import FAMILIES, AnySpec
from nfn_transformer.features.strokes import draw_strokes, random_strokes
from nfn_transformer.seeding import make_generator

INPUTS_AT_ONCE = 128
"""Inputs that networks are asked about at once."""

STROKE_PICTURES = 480
"""Pictures of random strokes among the inputs."""


@dataclass(frozen=True)
class ProbeInputs:
    """Inputs for networks of a spec: synthetic ones, the same for all, made of no data."""

    families: tuple[Tensor, ...]
    """Inputs [n, ...] of each family: images of blobs, noise and strokes; texts as words or vectors; or vectors."""
    classes: int
    """Number of classes, or of words that a language model tells apart."""
    answer: Callable[..., Tensor]
    """Return the logits [b, n * answers_each, classes] of b networks, the second argument, for inputs [n, ...].

    Gradients reach the inputs."""
    picture: tuple[int, int, int] | None = None
    """Channels, height and width of images on which strokes are drawn; None of other inputs."""
    draw_texts: Callable[[int, torch.Generator], Tensor] | None = None
    """Return texts [m, tokens] of random words, as numbers; None where no texts are made."""
    answers_each: int = 1
    """Answers to each input: one, or one for each of several positions."""
    read: Callable[..., Tensor] | None = None
    """Return what `answer` does up to rounding, faster, without gradients and for any number of inputs; or None."""

    def ask(self, inputs: Tensor, weights: Any) -> Tensor:
        """Return what `answer` does, without gradients and for any number of inputs."""
        if self.read is not None:
            return self.read(inputs, weights)
        with torch.no_grad():
            return torch.cat([self.answer(some, weights) for some in inputs.split(INPUTS_AT_ONCE)], dim=1)

    @property
    def counts(self) -> list[int]:
        """Return the number of answers to each family."""
        return [len(family) * self.answers_each for family in self.families]

    def is_like(self, other: "ProbeInputs") -> bool:
        """Return whether answers to both mean the same."""
        sizes, others = ((each.classes, each.answers_each, len(each.families)) for each in (self, other))
        return sizes == others and all(map(torch.equal, self.families, other.families))


@lru_cache(maxsize=8)
def probe_inputs(spec: AnySpec) -> ProbeInputs:
    """Return the inputs for networks of a spec.

    Raises:
        SpecError: the networks are no classifiers, or of a family whose answers are not computed.
    """
    function = FAMILIES[spec.family].probe_inputs
    if not function:
        raise SpecError(f"networks of family {spec.family}, whose answers are not computed")
    return resolve_name(function)(spec)


@lru_cache(maxsize=4)
def stroke_pictures(picture: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Return pictures [n, channels, height, width] of random strokes, a family for each number of strokes."""
    strokes = random_strokes(STROKE_PICTURES, make_generator(0, "probes", "strokes"))
    drawn = draw_strokes(strokes, picture[0], picture[1:])
    return tuple(drawn[strokes.count == count] for count in strokes.count.unique().tolist())
