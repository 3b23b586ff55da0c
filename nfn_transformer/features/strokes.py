"""Pictures of pen strokes: a generic kind of picture, made of random curves and of no data, that a gradient can move.

A stroke is a cubic Bézier curve that a round pen follows. Control points and the pen's radius are differentiable.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from nfn_transformer.weights.containers import TensorTree

MOST_STROKES = 4

# Coordinates are those of the picture's square, [-1, 1]. Curves stay off its edge, as written signs do.
_REACH, _EDGE = 0.72, 0.85
_LEAST_RADIUS, _MOST_RADIUS, _SOFTNESS = 0.06, 0.16, 0.05
# A curve is drawn as so many points, and small pictures as the mean of larger ones.
_POINTS, _LEAST_SIDE = 20, 24
_PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class Strokes(TensorTree):
    """Parameters of m pictures."""

    control: Float[Tensor, "m strokes 4 2"]
    """Control points of each curve, x and y in [-1, 1]."""
    count: Int64[Tensor, " m"]
    """Number of strokes that are drawn, 1 to MOST_STROKES."""
    radius: Float[Tensor, " m"]
    """Radius of the pen."""


def random_strokes(m: int, generator: torch.Generator) -> Strokes:
    """Return random strokes of m pictures; every second stroke begins where the one before ends."""
    control = (torch.rand(m, MOST_STROKES, 4, 2, generator=generator) * 2 - 1) * _REACH
    for stroke in range(1, MOST_STROKES):
        is_joined = torch.rand(m, generator=generator) < 0.5
        control[is_joined, stroke, 0] = control[is_joined, stroke - 1, 3]
    count = torch.randint(1, MOST_STROKES + 1, (m,), generator=generator)
    radius = _LEAST_RADIUS + (_MOST_RADIUS - _LEAST_RADIUS) * torch.rand(m, generator=generator)
    return Strokes(control, count, radius)


def draw_strokes(strokes: Strokes, channels: int, size: tuple[int, int]) -> Float[Tensor, "m channels height width"]:
    """Return pictures in [-1, 1], bright strokes on a dark ground, the same in all channels."""
    parts = [
        _draw(strokes.map(lambda tensor, start=start: tensor[start : start + _PICTURES_AT_ONCE]), size)
        for start in range(0, len(strokes.count), _PICTURES_AT_ONCE)
    ]
    return torch.cat(parts)[:, None].expand(-1, channels, -1, -1)


def _draw(strokes: Strokes, size: tuple[int, int]) -> Float[Tensor, "m height width"]:
    control, m = strokes.control, len(strokes.count)
    finer = math.ceil(_LEAST_SIDE / min(size))
    rows, columns = (torch.linspace(-1, 1, finer * side, dtype=control.dtype, device=control.device) for side in size)
    pixels = torch.stack([columns.repeat(len(rows)), rows.repeat_interleave(len(columns))], dim=1)  # [pixels, 2]
    t = torch.linspace(0, 1, _POINTS, dtype=control.dtype, device=control.device)[:, None]
    bernstein = torch.cat([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=1)  # [points, 4]
    points = torch.einsum("pk,mskc->mspc", bernstein, control)
    squares = (points.flatten(1, 2)[:, :, None] - pixels).square().sum(-1)  # [m, strokes points, pixels]
    nearest = squares.view(m, MOST_STROKES, _POINTS, -1).amin(2)  # [m, strokes, pixels]
    is_drawn = torch.arange(MOST_STROKES, device=control.device) < strokes.count[:, None]
    nearest = torch.where(is_drawn[..., None], nearest, math.inf).amin(1)
    distance = (nearest + 1e-9).sqrt()  # the root has no gradient at 0
    ink = torch.tanh((strokes.radius[:, None] - distance) / _SOFTNESS).view(m, 1, len(rows), len(columns))
    return functional.avg_pool2d(ink, finer).squeeze(1)


def bend_strokes(strokes: Strokes, size: float, generator: torch.Generator) -> Strokes:
    """Return the strokes under a random affine map of each picture, whose entries deviate by `size` from no change."""
    control = strokes.control
    linear = torch.eye(2) + size * torch.randn(len(control), 2, 2, generator=generator)
    shift = size * torch.randn(len(control), 1, 1, 2, generator=generator)
    return Strokes(
        torch.einsum("mskc,mcd->mskd", control, linear.to(control)) + shift.to(control), strokes.count, strokes.radius
    )


def within_bounds(strokes: Strokes) -> Strokes:
    """Return the strokes with control points in the picture and the radius of a pen."""
    radius = strokes.radius.clamp(_LEAST_RADIUS, _MOST_RADIUS)
    return Strokes(strokes.control.clamp(-_EDGE, _EDGE), strokes.count, radius)
