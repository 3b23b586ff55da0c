"""Initial scales of every term against the published rule, written out by hand here."""

import pytest
import torch

from nfn_transformer import BlockSpec, EquivariantBlockLayer, FeedForwardSpec, HNPSLayer, InvariantBlockLayer
from nfn_transformer.layers.base import INIT_TYPES, Fan, initialize_term

h, D, D_K, D_V, D_A, d, e = 2, 16, 4, 8, 24, 5, 6
n_0, n_L = 16, 7
SPECS = {
    EquivariantBlockLayer: BlockSpec(h, D, D_K, D_V, D_A),
    InvariantBlockLayer: BlockSpec(h, D, D_K, D_V, D_A),
    HNPSLayer: FeedForwardSpec((n_0, 24, 20, 12, n_L)),
}

# (fan_in, squared); the fan_out is that of the output. Of the terms that read b^A[k], those of E(A)
# and E(b^A) are not squared, Phi[k] b^A[j] of E(B) is.
SCALARS = {
    "s_QK": (d * h * D * D, True),
    "s_VO": (d * h * D * D, True),
    "s_A": (d * D * D_A, True),
    "s_B": (d * D_A * D, True),
    "s_bA": (d * D_A, True),
    "s_bB": (d * D, False),
}
COLUMNS = {"column_A": (d * D, True), "column_B": (d * D, True), "column_bA": (d, False)}
COLUMNS_OF_B = {"column_A": (d * D, True), "column_B": (d * D, True), "column_bA": (d, True)}
ROWS = {"row_VO": (d * h * D, True), "row_A": (d * D_A, True)}
FAN_OUT = {"A": e, "b_A": e, "B": e * D, "b_B": e * D, "I": e}


def expected_terms(layer):
    if isinstance(layer, InvariantBlockLayer):
        for name, (fan_in, squared) in SCALARS.items():
            yield layer.scalars.term("I", name), fan_in, e, squared
        yield layer.constant, 1, e, False
        return
    if isinstance(layer, HNPSLayer):
        yield layer.first_weight, d * n_0, e * n_0, False
        yield layer.first_weight_from_bias, d, e * n_0, False
        yield layer.first_bias_from_weight, d * n_0, e, False
        yield layer.first_bias, d, e, False
        for phi in (*layer.middle_weights, *layer.middle_biases):
            yield phi, d, e, False
        yield layer.last_weight, d * n_L, e * n_L, False
        yield layer.last_bias, d * n_L, e * n_L, False
        yield layer.constant, 1, e * n_L, False
        return
    for output in ("A", "b_A", "B", "b_B"):
        for name, (fan_in, squared) in SCALARS.items():
            yield layer.scalars.term(output, name), fan_in, FAN_OUT[output], squared
    for output, terms in (("A", COLUMNS), ("b_A", COLUMNS), ("B", COLUMNS_OF_B)):
        for name, (fan_in, squared) in terms.items():
            yield layer.columns.term(output, name), fan_in, FAN_OUT[output], squared
    for name, (fan_in, squared) in ROWS.items():
        yield layer.rows.term("A", name), fan_in, e, squared
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


@pytest.mark.parametrize("layer_type", SPECS)
@pytest.mark.parametrize("init_type", [name for name in INIT_TYPES if name != "reference"])
def test_every_term_has_the_scale_of_its_fans(layer_type, init_type):
    spec = SPECS[layer_type]
    layers = [layer_type(spec, d, e, init_type, torch.Generator().manual_seed(seed)) for seed in range(100)]
    numbers = sum(parameter.numel() for parameter in layers[0].parameters())
    assert sum(term.numel() for term, *_ in expected_terms(layers[0])) == numbers
    for terms in zip(*(expected_terms(layer) for layer in layers), strict=True):
        values = torch.stack([term.detach().flatten() for term, *_ in terms])
        ratio = values.std() / standard_deviation(init_type, *terms[0][1:])
        # The estimate's own error is 1 / (2 n)^(1/2) for n numbers: below 3 % from 600 numbers up.
        assert abs(ratio - 1) < 5 / (2 * values.numel()) ** 0.5


def test_one_seed_gives_one_layer():
    spec = SPECS[EquivariantBlockLayer]
    first, second = (EquivariantBlockLayer(spec, 1, 2, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="init_type 'zeros', expected one of pytorch_default, kaiming_normal"):
        initialize_term(torch.empty(3), Fan(1, 1), "zeros")
