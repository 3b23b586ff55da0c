"""Encoders of feed-forward networks: exact symmetries of what they claim, and a control that breaks them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_networks import SPECS, random_networks

from nfn_transformer.errors import SpecError, UserError
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.groups.network import NetworkElement
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import Predictor, build_predictor
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.zoo.reading import read_zoo

TOLERANCE = 1e-9
SCALE_FREE = ("hnps", "magep", "complete", "bilinear")
ENCODERS = ("np", "hnp", "nft", "graph", *SCALE_FREE)


def predictor(encoder: str, spec: NetworkSpec, U: NetworkWeights, **flags) -> Predictor:
    """A predictor in float64 whose parameters are not the initial ones, so that no output is constant."""
    config = ModelConfig.from_flags({"enc_mode": encoder, "ensemble": 1, **flags}).without_parts()
    config.check(spec, "test")
    model = build_predictor(spec, config, seed=1).double().eval()
    if model.needs_normalization:
        model.fit_normalization([model.featurize(U)])
    return model


def moves(model: Predictor, U: NetworkWeights, g: NetworkElement) -> float:
    with torch.no_grad():
        return relative_error(model.predict(g.act(U)), model.predict(U))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_group_changes_no_prediction(encoder, name, generator):
    spec, U = SPECS[name], random_networks(SPECS[name], 6, generator)
    model = predictor(encoder, spec, U)
    with torch.no_grad():
        assert model.predict(U).std() > 1e-5
    claimed = spec if encoder in SCALE_FREE or spec.activation != "relu" else replace(spec, activation="gelu")
    assert moves(model, U, NetworkElement.sample(claimed, generator, largest_scale=1e4)) < TOLERANCE


@pytest.fixture(scope="module")
def trained() -> NetworkWeights:
    """Trained SIRENs of 24 digits, in float64."""
    data = Path(__file__).parents[2] / "data/digit_sirens.zip"
    zoo = read_zoo(data, "digits", progress=False, labels="none", load_cache=False)
    return zoo.weights(torch.arange(24)).to(torch.float64)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_signs_and_phases_of_trained_networks_change_no_prediction(encoder, trained, generator):
    model = predictor(encoder, trained.spec, trained)
    assert moves(model, trained, NetworkElement.sample(trained.spec, generator)) < TOLERANCE
    other = replace(trained.spec, omega=trained.spec.omega + 1)
    wrong = NetworkElement.sample(other, generator).act(replace(trained, spec=other))
    with torch.no_grad():
        shift = relative_error(model.predict(replace(wrong, spec=trained.spec)), model.predict(trained))
    assert shift > 1e-5


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_is_no_symmetry_moves_predictions(encoder, generator):
    spec, other = SPECS["gelu cnn"], SPECS["tanh cnn"]
    U = random_networks(spec, 6, generator)
    model = predictor(encoder, spec, U)
    signs = NetworkElement.sample(other, generator)
    assert moves(model, U, signs) > 1e-6
    assert moves(model, U, permuted_apart(signs)) > 1e-6


@pytest.mark.parametrize("flags", [{"graph_conv": "attention"}, {"graph_probes": 3}], ids=["attention", "probes"])
@pytest.mark.parametrize("name", ["siren", "relu cnn"])
def test_graphs_of_other_kinds_have_the_symmetries(flags, name, generator):
    spec, U = SPECS[name], random_networks(SPECS[name], 6, generator)
    model = predictor("graph", spec, U, **flags)
    claimed = spec if spec.activation == "sine" else replace(spec, activation="gelu")
    assert moves(model, U, NetworkElement.sample(claimed, generator)) < TOLERANCE


@pytest.mark.parametrize("encoder", ["graph", "bilinear"])
def test_even_kernels_before_flattened_maps_are_read(encoder, generator):
    spec = NetworkSpec((1, 4, 3), ((2, 2), None), strides=(2,), flattened=4)
    model = predictor(encoder, spec, U := random_networks(spec, 4, generator))
    assert model.predict(U).isfinite().all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_network_without_hidden_layers_is_refused(encoder, generator):
    spec = NetworkSpec((5, 3), (None,))
    with pytest.raises(SpecError, match="hidden layer"):
        predictor(encoder, spec, U := random_networks(spec, 2, generator)).predict(U)


@pytest.mark.parametrize("flags", [{"log_magnitudes": True}, {"standardize": False}])
def test_graphs_refuse_scales_that_they_do_not_have(flags, generator):
    with pytest.raises(UserError, match=r"^--(log_magnitudes True|standardize False): cannot be combined"):
        predictor("graph", SPECS["siren"], random_networks(SPECS["siren"], 2, generator), **flags)


@pytest.mark.parametrize("encoder", ["graph", "bilinear", "complete"])
def test_a_network_among_larger_ones_is_read_as_alone(encoder, generator):
    specs = [NetworkSpec((1, 4, 6, 3), ((3, 3), (3, 3), None)), NetworkSpec((1, 3, 3), ((2, 2), None))]
    large, small = (random_networks(spec, 4, generator) for spec in specs)
    model = predictor(encoder, specs[0], large)
    assert model.supports(specs[1])
    assert not model.supports(replace(specs[1], sizes=(2, 3, 3), kernels=(None, None)))
    shapes = iter([tensor.shape[1:] for tensor in model.featurize(large).tensors()])
    features = model.featurize(small)

    def among_larger(tensor: torch.Tensor) -> torch.Tensor:
        largest = [max(pair) for pair in zip(tensor.shape[1:], next(shapes), strict=True)]
        padded = tensor.new_full((len(tensor), *largest), float("nan"))
        padded[(slice(None), *map(slice, tensor.shape[1:]))] = tensor
        return padded

    with torch.no_grad():
        assert relative_error(model.from_features(features.map(among_larger)), model.from_features(features)) < 1e-12


def permuted_apart(g: NetworkElement) -> NetworkElement:
    """Element that permutes rows of one layer, but not the columns that read them."""

    class Wrong(NetworkElement):
        def act(self, weights):
            first, *others = weights.weights
            return replace(weights, weights=(first[:, self.permutations[0]], *others))

    return Wrong(g.permutations, g.factors, g.phases)
