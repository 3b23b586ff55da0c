"""Initial scales of every term against the published rule, written out by hand here."""

import pytest
import torch

from nfn_transformer.layers.equivariant import EquivariantBlockLayer
from nfn_transformer.layers.initialization import INIT_TYPES, Fan, initialize_term
from nfn_transformer.layers.invariant import InvariantBlockLayer
from nfn_transformer.weights.spec import BlockSpec

h, D, D_K, D_V, D_A, d, e = 2, 16, 4, 8, 24, 5, 6
SPEC = BlockSpec(h, D, D_K, D_V, D_A)

# (fan_in, fan_out per output group of e or e D numbers, squared)
SCALARS = {
    "s_QK": (d * h * D * D, True),
    "s_VO": (d * h * D * D, True),
    "s_A": (d * D * D_A, True),
    "s_B": (d * D_A * D, True),
    "s_bA": (d * D_A, True),
    "s_bB": (d * D, False),
}
COLUMNS = {"column_A": (d * D, True), "column_B": (d * D, True), "column_bA": (d, False)}
ROWS = {"row_VO": (d * h * D, True), "row_A": (d * D_A, True)}
FAN_OUT = {"A": e, "b_A": e, "B": e * D, "b_B": e * D, "I": e}


def expected_terms(layer):
    if isinstance(layer, InvariantBlockLayer):
        for name, (fan_in, squared) in SCALARS.items():
            yield layer.scalars.term("I", name), fan_in, e, squared
        yield layer.constant, 1, e, False
        return
    for table, terms in ((layer.scalars, SCALARS), (layer.columns, COLUMNS), (layer.rows, ROWS)):
        for output in table.outputs:
            for name, (fan_in, squared) in terms.items():
                yield table.term(output, name), fan_in, FAN_OUT[output], squared
    for Phi in (layer.Phi_Q, layer.Phi_K, layer.Phi_V):
        yield Phi, d * D, e * D, False
    yield layer.phi_O1, d * D, e, False
    yield layer.phi_O2, d, e, False
    yield layer.phi_A, d, e, True
    for constant, fan_out in (("constant_A", e), ("constant_b_A", e), ("constant_B", e * D), ("constant_b_B", e * D)):
        yield getattr(layer, constant), 1, fan_out, False


def standard_deviation(init_type, fan_in, fan_out, squared):
    power = 2 if squared else 1
    return {
        "xavier_normal": (2 / (fan_in + fan_out)) ** (0.5 * power),
        "xavier_uniform": (6 / (fan_in + fan_out)) ** (0.5 * power) / 3**0.5,
        "kaiming_normal": (2 / fan_in) ** (0.5 * power),
        "pytorch_default": fan_in ** (-0.5 * power) / 3**0.5,
        "uniform": 1 / 3**0.5,
    }[init_type]


@pytest.mark.parametrize("layer_type", [EquivariantBlockLayer, InvariantBlockLayer])
@pytest.mark.parametrize("init_type", INIT_TYPES)
def test_every_term_has_the_scale_of_its_fans(layer_type, init_type):
    layers = [layer_type(SPEC, d, e, init_type, torch.Generator().manual_seed(seed)) for seed in range(100)]
    for terms in zip(*(expected_terms(layer) for layer in layers), strict=True):
        values = torch.stack([term.detach().flatten() for term, *_ in terms])
        ratio = values.std() / standard_deviation(init_type, *terms[0][1:])
        # The estimate's own error is 1 / (2 n)^(1/2) for n numbers: below 3 % from 600 numbers up.
        assert abs(ratio - 1) < 5 / (2 * values.numel()) ** 0.5


def test_one_seed_gives_one_layer():
    first, second = (EquivariantBlockLayer(SPEC, 1, 2, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="init_type 'zeros', expected one of pytorch_default, kaiming_normal"):
        initialize_term(torch.empty(3), Fan(1, 1), "zeros")
