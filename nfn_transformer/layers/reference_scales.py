"""Initial scales of the reference implementation: `--init_type reference`.

The reference implementation draws the terms of one output in groups. All terms of a group have one standard deviation,
(2 / (fan_in + fan_out))^(1/2) with the sums of the group's fans, squared for some groups.

A polynomial term's fans count entries of its input: fan_in those that the term sums over, channels included, fan_out
the others. A constant has fan_in 1, and its own size as fan_out. HNPS terms have the fans of `HNPSLayer.fans`.

Some counts are no theory but what was measured on the reference implementation, and what published results rest on:

- E(Q), E(K) and E(V) sum over D_k or D_v entries and leave h D, in place of D and h D_k;
- E(A) counts s_bB twice, and I counts s_bB twice in place of s_bA;
- E(b^B) counts b^A[k] among its unsquared terms, and s_A twice among the squared ones.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from nfn_transformer.layers.base import Fan

if TYPE_CHECKING:
    from nfn_transformer.layers.polynomial import EquivariantBlockLayer, InvariantBlockLayer


class _Group(NamedTuple):
    """Terms of one output that are drawn with one standard deviation; names are separated by spaces."""

    terms: str
    counted: str | None = None
    """Terms whose fans are added up; None: those of the group."""
    squared: bool = False


_GROUPS = {
    "A": (
        _Group("column_bA s_bB constant", counted="column_bA s_bB s_bB constant"),
        _Group("s_QK s_VO row_VO", squared=True),
        _Group("s_A s_B s_bA column_A column_B row_A phi_A", squared=True),
    ),
    "b_A": (
        _Group("column_bA s_bB constant"),
        _Group("s_QK s_VO", squared=True),
        _Group("s_A s_B s_bA column_A column_B", squared=True),
    ),
    "B": (
        _Group("column_bA s_bB constant"),
        _Group("s_QK s_VO", squared=True),
        _Group("s_A s_B s_bA column_A column_B", squared=True),
    ),
    "b_B": (
        _Group("s_bB constant", counted="column_bA s_bB constant"),
        _Group("s_QK s_VO", squared=True),
        _Group("s_A s_B s_bA", counted="s_A s_A s_B s_bA", squared=True),
    ),
    "I": (
        _Group("s_bA s_bB constant", counted="s_bB s_bB constant"),
        _Group("s_QK s_VO", squared=True),
        _Group("s_A s_B", squared=True),
    ),
}


def grouped(*terms: tuple[Tensor, Fan]) -> Iterator[tuple[Tensor, Fan]]:
    """Yield each term with the sum of all terms' fans."""
    fan = _sum([fan for _, fan in terms])
    yield from ((term, fan) for term, _ in terms)


def equivariant_fans(layer: "EquivariantBlockLayer") -> Iterator[tuple[Tensor, Fan]]:
    """Yield each term of E with the fans of its group."""
    spec, d = layer.spec, layer.in_channels
    h, D, D_k, D_v, D_A = spec.heads, spec.width, spec.key, spec.value, spec.hidden
    yield from ((layer.Phi_Q, Fan(d * D_k, h * D)), (layer.Phi_K, Fan(d * D_k, h * D)))
    yield layer.Phi_V, Fan(d * D_v, h * D)
    yield from grouped((layer.phi_O1, Fan(d * D, h * D_v)), (layer.phi_O2, Fan(d, h * D_v * D)))
    tables = {layer.scalars: 1, layer.columns: D_A, layer.rows: D}
    fans = {term.name: Fan(d * term.summed, kept) for table, kept in tables.items() for term in table.terms}
    fans["phi_A"] = Fan(d, D * D_A)
    constants = {"A": layer.constant_A, "b_A": layer.constant_b_A, "B": layer.constant_B, "b_B": layer.constant_b_B}
    for output, constant in constants.items():
        terms = {name: term for table in tables for name, term in table.terms_of(output).items()}
        yield from _group_fans(output, {**terms, "phi_A": layer.phi_A, "constant": constant}, fans)


def invariant_fans(layer: "InvariantBlockLayer") -> Iterator[tuple[Tensor, Fan]]:
    """Yield each term of I with the fans of its group."""
    fans = {term.name: Fan(layer.in_channels * term.summed, 1) for term in layer.scalars.terms}
    return _group_fans("I", {**layer.scalars.terms_of("I"), "constant": layer.constant}, fans)


def _group_fans(output: str, terms: dict[str, Tensor], fans: dict[str, Fan]) -> Iterator[tuple[Tensor, Fan]]:
    """Yield the terms of one output with the fans of their groups."""
    fans = {**fans, "constant": Fan(1, terms["constant"].numel())}
    for group in _GROUPS[output]:
        fan = _sum([fans[name] for name in (group.counted or group.terms).split()], group.squared)
        yield from ((terms[name], fan) for name in group.terms.split())


def _sum(fans: list[Fan], squared: bool = False) -> Fan:
    """Return the sums of fans."""
    return Fan(sum(fan.fan_in for fan in fans), sum(fan.fan_out for fan in fans), squared)
