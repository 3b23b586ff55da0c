"""`--init_type reference`: standard deviations that were measured on the reference implementation, drawn once."""

import math

import pytest
import torch

from nfn_transformer import (
    BlockSpec,
    EquivariantBlockLayer,
    FeedForwardSpec,
    HNPLinear,
    HNPSLayer,
    HNPSPooling,
    InvariantBlockLayer,
    MAGEPLayer,
    ModelConfig,
    UserError,
    build_predictor,
)

BLOCK, CLASSIFIER = BlockSpec(heads=2, width=32, key=16, value=16, hidden=64), FeedForwardSpec((32, 64, 10))

EQUIVARIANT_1_10 = {
    "Phi_Q": 0.158, "Phi_K": 0.158, "Phi_V": 0.158, "phi_O1": 0.0463, "phi_O2": 0.0429,
    "A/s_QK": 0.000476, "A/s_VO": 0.000474, "A/s_A": 0.000294, "A/s_B": 0.000313, "A/s_bA": 0.000262, "A/s_bB": 0.119,
    "A/row_VO": 0.000481, "A/row_A": 0.000329, "A/column_A": 0.000284, "A/column_B": 0.000305, "A/column_bA": 0.121,
    "phi_A": 0.000313, "constant_A": 0.111,
    "b_A/s_QK": 0.00049, "b_A/s_VO": 0.00048, "b_A/s_A": 0.000468, "b_A/s_B": 0.000455, "b_A/s_bA": 0.000495,
    "b_A/s_bB": 0.138, "b_A/column_A": 0.000485, "b_A/column_B": 0.000464, "b_A/column_bA": 0.138,
    "constant_b_A": 0.136,
    "B/s_QK": 0.000488, "B/s_VO": 0.000488, "B/s_A": 0.000472, "B/s_B": 0.000461, "B/s_bA": 0.000462, "B/s_bB": 0.0693,
    "B/column_A": 0.000453, "B/column_B": 0.00046, "B/column_bA": 0.0691, "constant_B": 0.0684,
    "b_B/s_QK": 0.000488, "b_B/s_VO": 0.000488, "b_B/s_A": 0.00032, "b_B/s_B": 0.000322, "b_B/s_bA": 0.000322,
    "b_B/s_bB": 0.0691, "constant_b_B": 0.0699,
}  # fmt: skip
INVARIANT_10_10 = {
    "I/s_QK": 4.88e-05, "I/s_VO": 4.89e-05, "I/s_A": 4.82e-05, "I/s_B": 4.9e-05, "I/s_bA": 0.054, "I/s_bB": 0.055,
    "constant": 0.0496,
}  # fmt: skip
HNPS_1_10 = {
    "first_weight": 0.0546, "first_weight_from_bias": 0.0544, "first_bias_from_weight": 0.194, "first_bias": 0.2,
    "last_weight": 0.134, "last_bias": 0.0973, "constant": 0.0975,
}  # fmt: skip
HNPS_10_10 = {
    "first_weight": 0.0454, "first_weight_from_bias": 0.0453, "first_bias_from_weight": 0.0756, "first_bias": 0.0769,
    "last_weight": 0.1, "last_bias": 0.0816, "constant": 0.0833,
}  # fmt: skip
CASES = {
    "E 1 -> 10": (EquivariantBlockLayer, BLOCK, 1, EQUIVARIANT_1_10),
    "I 10 -> 10": (InvariantBlockLayer, BLOCK, 10, INVARIANT_10_10),
    "HNPS 1 -> 10": (HNPSLayer, CLASSIFIER, 1, HNPS_1_10),
    "HNPS 10 -> 10": (HNPSLayer, CLASSIFIER, 10, HNPS_10_10),
}


def term(layer, name):
    output, _, name = name.rpartition("/")
    if not output:
        return dict(layer.named_parameters())[name]
    kind = "scalars" if name.startswith("s_") else name.split("_")[0].removesuffix("s") + "s"
    return dict(layer.named_children())[kind].term(output, name)


@pytest.mark.parametrize("case", CASES)
def test_standard_deviations_are_those_measured_on_the_reference_implementation(case):
    layer_type, spec, channels, measured = CASES[case]
    layers = [layer_type(spec, channels, 10, "reference", torch.Generator().manual_seed(s)) for s in range(30)]
    assert sum(term(layers[0], name).numel() for name in measured) == sum(p.numel() for p in layers[0].parameters())
    for name, expected in measured.items():
        drawn = torch.stack([term(layer, name).detach() for layer in layers])
        # The table's number comes from one drawing of n numbers: its own error is 1 / (2 n)^(1/2).
        tolerance = max(0.05, 3 / math.sqrt(2 * drawn[0].numel()))
        assert drawn.std().item() == pytest.approx(expected, rel=tolerance), name


def test_terms_of_one_group_have_one_scale_and_middle_layers_are_groups_of_their_own():
    layer = HNPSLayer(FeedForwardSpec((16, 24, 20, 7)), 5, 6)
    fans = {id(parameter): fan for parameter, fan in layer.reference_fans()}
    assert fans[id(layer.first_weight)] == fans[id(layer.first_weight_from_bias)]
    assert [
        (fan.fan_in, fan.fan_out) for fan in map(fans.get, map(id, (*layer.middle_weights, layer.last_weight)))
    ] == [
        (5, 6),
        (5 * 7, 6 * 7),
    ]
    assert len(fans) == len(list(layer.parameters()))


def test_pooling_draws_from_the_standard_normal_distribution():
    poolings = [HNPSPooling(CLASSIFIER, 10, "reference", torch.Generator().manual_seed(seed)) for seed in range(50)]
    numbers = torch.stack([torch.stack([pooling.scale, pooling.shift]) for pooling in poolings])
    assert numbers.mean().item() == pytest.approx(0, abs=0.05)
    assert numbers.std().item() == pytest.approx(1, abs=0.05)
    usual = HNPSPooling(CLASSIFIER, 10)
    assert (usual.scale == 1).all()
    assert (usual.shift == 0).all()


def test_a_predictor_is_drawn_so_in_all_its_layers(small):
    config = ModelConfig("inv", "hnps", "mlp", init_type="reference", options={"classifier_nfn_channels": (4, 4)})
    model = build_predictor(small.spec, config, seed=1)
    scales = dict(model.named_parameters())
    pooling = next(value for name, value in scales.items() if name.endswith("pooling.scale"))
    Phi_Q = next(value for name, value in scales.items() if name.endswith("Phi_Q"))
    assert (pooling != 1).all()
    assert Phi_Q.std().item() == pytest.approx(math.sqrt(2 / (8 + 2 * 16)), rel=0.1)


@pytest.mark.parametrize("mode", ["np", "hnp", "magep"])
def test_layers_that_the_reference_does_not_have_are_refused(small, mode):
    with pytest.raises(UserError, match=f"--init_type reference: cannot be combined with --cls_mode {mode}"):
        ModelConfig("inv", mode, "mlp", init_type="reference").check(small.spec, "small")


@pytest.mark.parametrize("layer_type", [MAGEPLayer, HNPLinear])
def test_their_layers_say_so(layer_type):
    with pytest.raises(ValueError, match=r"init_type .reference.: \w+ is not part of the reference implementation"):
        layer_type(CLASSIFIER, 1, 2, "reference")
