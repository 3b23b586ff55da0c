"""Encoders of standard transformers: the whole group moves no prediction, what is no symmetry does."""

from dataclasses import replace

import pytest
import torch
from standard_networks import STANDARD_SPECS, random_standard

from nfn_transformer import ModelConfig, Predictor, StandardElement, build_predictor
from nfn_transformer.features import standard_invariants
from nfn_transformer.features.standard_invariants import read_standard_invariants, standard_invariant_names
from nfn_transformer.features.standard_probes import standard_probes
from nfn_transformer.features.standard_products import read_standard_products, standard_product_names
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models import standard_graph_encoder
from nfn_transformer.trees.features import features_of_networks


@pytest.fixture(autouse=True)
def _few_probes(monkeypatch):
    """Eight inputs of each family in place of 32 suffice, and take a quarter of the time."""
    monkeypatch.setattr(
        standard_invariants,
        "standard_probes",
        lambda spec: {name: family[:8] for name, family in standard_probes(spec).items()},
    )


ENCODERS = pytest.mark.parametrize("encoder", ["complete", "products"])


def predictor(encoder, U) -> Predictor:
    """A predictor in float64 with scales of U, and parameters that are not the initial ones."""
    config = ModelConfig.from_flags({"enc_mode": encoder, "ensemble": 1})
    config.check(U.spec, "test")
    model = build_predictor(U.spec, config, seed=1).double().eval()
    model.fit_normalization([model.featurize(U)])
    return model


@pytest.mark.parametrize("name", STANDARD_SPECS)
@ENCODERS
def test_the_group_changes_no_prediction(encoder, name, generator):
    spec, U = STANDARD_SPECS[name], random_standard(STANDARD_SPECS[name], 3, generator)
    model, g = predictor(encoder, U), StandardElement.sample(spec, generator)
    with torch.no_grad():
        before = model.predict(U)
        assert before.std() > 1e-4
        assert relative_error(model.predict(g.act(U)), before) < 1e-9
        first, *others = U.blocks
        for role in ("W_Q", "W_V", "W_2")[encoder == "complete" :]:
            changed = replace(first, **{role: vars(first)[role].flip(-1)})
            assert relative_error(model.predict(replace(U, blocks=(changed, *others))), before) > 1e-6, role


@ENCODERS
def test_one_model_reads_other_depths_and_widths(encoder, generator):
    spec = STANDARD_SPECS["bert"]
    model = predictor(encoder, random_standard(spec, 4, generator))
    other = replace(STANDARD_SPECS["llama"], blocks=3, width=12, head_sizes=(12, 5), vocabulary=20)
    assert model.supports(other)
    assert model.supports(STANDARD_SPECS["vit"]) == (encoder == "products")
    assert model.predict(random_standard(other, 2, generator)).isfinite().all()


def test_each_number_has_a_name(generator):
    U = random_standard(STANDARD_SPECS["gpt"], 2, generator)
    for features, read, (blocks, rest) in (
        ("invariants", read_standard_invariants, standard_invariant_names(U.spec)),
        ("products", read_standard_products, standard_product_names()),
    ):
        numbers = read(U)
        assert (numbers.blocks.shape[2], numbers.rest.shape[1]) == (len(set(blocks)), len(set(rest)))
        assert features_of_networks(features, U).shape == (2, 3 * len(blocks) + len(rest))


def test_single_precision_is_enough_for_48_blocks(generator, monkeypatch):
    monkeypatch.setattr(
        standard_invariants, "standard_probes", lambda spec: {"repeated": standard_probes(spec)["repeated"][:8]}
    )
    U = random_standard(replace(STANDARD_SPECS["gpt"], blocks=48), 1, generator)
    exact, single = read_standard_invariants(U), read_standard_invariants(U.to(torch.float32))
    scale = exact.blocks.std((0, 1)).clamp(min=0.1)
    assert ((single.blocks - exact.blocks).abs() / scale).amax() < 0.05


def permuted(U, generator):
    """Networks whose stream, heads and neurons are permuted, and nothing else is done to them."""
    spec, g = U.spec, StandardElement.sample(U.spec, generator)
    fixed, D = spec.inputs == "stream" or not spec.head_sizes, spec.width
    R, M, N = (torch.eye(n, dtype=torch.float64)[torch.randperm(n)] for n in (D, spec.key, spec.value))
    heads = tuple(replace(each, M=M.expand_as(each.M), N=N.expand_as(each.N)) for each in g.heads)
    neurons, head = (tuple(replace(each, c=torch.ones_like(each.c)) for each in parts) for parts in (g.neurons, g.head))
    stream = g.stream if fixed else replace(g.stream, R=R)
    return replace(g, stream=stream, heads=heads, neurons=neurons, head=head).act(U)


def test_weights_that_overflow_are_read_all_the_same(generator):
    U = random_standard(STANDARD_SPECS["vit"], 2, generator).to(torch.float32)
    huge = U.map(lambda tensor: torch.cat([tensor[:1], 1e25 * tensor[1:]]))
    numbers = read_standard_invariants(huge)
    assert numbers.rest.isfinite().all()
    assert torch.equal(numbers.rest[:1], read_standard_invariants(U[:1]).rest)


@pytest.mark.parametrize("name", STANDARD_SPECS)
def test_permutations_change_no_prediction_of_a_graph(name, generator):
    U = random_standard(STANDARD_SPECS[name], 3, generator)
    model = predictor("graph", U)
    with torch.no_grad():
        before = model.predict(U)
        assert before.std() > 1e-4
        assert relative_error(model.predict(permuted(U, generator)), before) < 1e-9
        assert relative_error(model.predict(replace(U, blocks=U.blocks[::-1])), before) > 1e-6


def test_large_vocabularies_are_pooled_exactly(generator, monkeypatch):
    spec = replace(STANDARD_SPECS["gpt"], vocabulary=60, head_sizes=(8, 60))
    U = random_standard(spec, 2, generator)
    whole = predictor("graph", U)
    rows = encoder_of(whole).featurize(U).inputs
    monkeypatch.setattr(standard_graph_encoder, "WHOLE_ROWS", 59)
    monkeypatch.setattr(standard_graph_encoder, "POOLS", 7)
    pooled = predictor("graph", U)
    graphs = encoder_of(pooled).featurize(U)
    others = rows.shape[1] - 60
    assert (graphs.inputs.shape[1], graphs.columns.shape[2], graphs.biases.shape[1]) == (14 + others, 14, 14)
    moments = torch.stack([part.square().mean(1) for part in rows[:, :60].tensor_split(7, dim=1)], dim=1)
    torch.testing.assert_close(graphs.inputs[:, :7].square() + graphs.inputs[:, 7:14].square(), moments)
    assert sum(map(torch.numel, pooled.parameters())) < sum(map(torch.numel, whole.parameters()))
    with torch.no_grad():
        before = pooled.predict(U)
        assert relative_error(pooled.predict(permuted(U, generator)), before) < 1e-9
        assert U.words is not None
        assert relative_error(pooled.predict(U.replace_words(2 * U.words)), before) > 1e-6


def encoder_of(model):
    return next(module for module in model.modules() if isinstance(module, standard_graph_encoder.StandardGraphEncoder))
