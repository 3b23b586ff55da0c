"""Tests that a zoo's good networks make for others: pictures of strokes, or texts, in which they see a class.

Pictures and texts are random at first, and those that the makers are surest of are kept. The strokes of pictures then
move until the makers are surer still. A test is made of no data, and no symmetry of the makers changes it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfn_transformer.features.answers import INPUTS_AT_ONCE, ProbeInputs
from nfn_transformer.features.strokes import Strokes, bend_strokes, draw_strokes, random_strokes, within_bounds
from nfn_transformer.weights.any_weights import Weights

OF_A_CLASS = 20
"""Pictures or texts of a class in a test."""

BENDS = (0.0, 0.05, 0.1, 0.1)
"""Deviations of the random affine maps that bend the strokes of each test of pictures.

Bent signs are as different as handwriting is: results on them rank networks better than results on noise do."""

EXCHANGED = (0.0, 0.3)
"""Shares of the words that are exchanged for random ones in each test of texts."""

# Among so many random ones the first are chosen. Strokes then move by so many steps.
_CANDIDATES, _STEPS, _STEP = 1500, 40, 0.03


def count_tests(inputs: ProbeInputs) -> int:
    """Return the number of tests that networks of these inputs get from each half of the makers."""
    return len(BENDS) if inputs.picture else len(EXCHANGED) if inputs.draw_texts else 0


def labels_of_tests(inputs: ProbeInputs, device: torch.device) -> Int64[Tensor, " m"]:
    """Return the class of each picture or text, one class after another."""
    return torch.arange(inputs.classes, device=device).repeat_interleave(OF_A_CLASS)


def pictures_of(inputs: ProbeInputs, strokes: Strokes) -> Float[Tensor, "m channels height width"]:
    """Return pictures of strokes, of the size that the networks read."""
    assert inputs.picture is not None, "networks read images"
    channels, height, width = inputs.picture
    return draw_strokes(strokes, channels, (height, width))


def picture_tests(inputs: ProbeInputs, strokes: Strokes, generator: torch.Generator) -> list[Tensor]:
    """Return the pictures [m, ...] of each test: of bent strokes."""
    return [pictures_of(inputs, bend_strokes(strokes, bend, generator)) for bend in BENDS]


def text_tests(
    inputs: ProbeInputs, texts: Int64[Tensor, "m tokens"], generator: torch.Generator
) -> list[Int64[Tensor, "m tokens"]]:
    """Return the texts of each test: with random words in place of some."""
    assert inputs.draw_texts is not None, "networks read words"
    tests = []
    for share in EXCHANGED:
        others = inputs.draw_texts(len(texts), generator)
        is_other = torch.rand(others.shape, generator=generator) < share
        tests.append(torch.where(is_other.to(texts.device), others.to(texts.device), texts))
    return tests


@torch.no_grad()
def _surest(inputs: ProbeInputs, candidates: Tensor, makers: Sequence[Weights]) -> Int64[Tensor, " m"]:
    """Return the indices of the candidates that makers are surest of, as many for each class."""
    sure = torch.cat([inputs.ask(candidates, some).log_softmax(-1) for some in makers]).mean(0)  # [n, classes]
    return sure.topk(OF_A_CLASS, dim=0).indices.T.flatten()


def make_texts(
    inputs: ProbeInputs, makers: Sequence[Weights], generator: torch.Generator, device: torch.device
) -> Int64[Tensor, "m tokens"]:
    """Return texts in which the makers see a class: the best of random ones."""
    assert inputs.draw_texts is not None, "networks read words"
    candidates = inputs.draw_texts(_CANDIDATES, generator).to(device)
    return candidates[_surest(inputs, candidates, makers)]


def make_strokes(
    inputs: ProbeInputs, makers: Sequence[Weights], generator: torch.Generator, device: torch.device
) -> Strokes:
    """Return strokes in which the makers see a class: the best of random ones, moved until they are surer still."""
    candidates = random_strokes(_CANDIDATES, generator).to(device)
    with torch.no_grad():
        drawn = pictures_of(inputs, candidates)
    strokes = candidates[_surest(inputs, drawn, makers)]
    control, radius = (tensor.clone().requires_grad_() for tensor in (strokes.control, strokes.radius))
    optimizer, networks = torch.optim.Adam([control, radius], lr=_STEP), sum(some.batch for some in makers)
    of_pictures = labels_of_tests(inputs, device)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        for piece in torch.arange(len(radius), device=device).split(INPUTS_AT_ONCE):
            drawn = pictures_of(inputs, Strokes(control[piece], strokes.count[piece], radius[piece]))
            labels = of_pictures[piece]
            for some in makers:
                log_p = inputs.answer(drawn, some).log_softmax(-1)
                right = log_p.gather(-1, labels.expand(some.batch, -1)[..., None])
                (-right.sum() / networks / len(radius)).backward(retain_graph=some is not makers[-1])
        optimizer.step()
        with torch.no_grad():
            bounded = within_bounds(Strokes(control, strokes.count, radius))
            control.copy_(bounded.control)
            radius.copy_(bounded.radius)
    return Strokes(control.detach(), strokes.count, radius.detach())
