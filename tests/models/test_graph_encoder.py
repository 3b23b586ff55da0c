"""The graph encoder: under which symmetries it is invariant, under which not, and that it sees everything."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_transformer

from nfn_transformer.groups.complete import CompleteElement
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models import graph_encoder
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import SinglePredictor, build_predictor
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

TOLERANCE = 1e-9
CONFIG = ModelConfig(enc_mode="graph", cls_mode="no", emb_mode="no", standardize=True, options={"graph_dim": 8})
CONVOLUTIONS = [
    CONFIG,
    replace(CONFIG, options={**CONFIG.options, "graph_conv": "attention"}),
    replace(CONFIG, options={**CONFIG.options, "graph_layers": 1}, log_magnitudes=True),
]


def _spec(heads=2, key=3, value=2, hidden=5, blocks=2, with_embedding=True) -> TransformerSpec:
    block = BlockSpec(heads, 6, key, value, hidden)
    embedding = EmbeddingSpec(2, 6, (2, 3), 6) if with_embedding else None
    return TransformerSpec((block,) * blocks, FeedForwardSpec((6, 5, 3)), embedding)


def _predictor(U: TransformerWeights, config: ModelConfig = CONFIG) -> SinglePredictor:
    model = build_predictor(U.spec, config, seed=1).double()
    model.fit_normalization([model.featurize(U)])
    return model


sizes = st.integers(1, 4)


@settings(max_examples=15, deadline=None)
@given(
    spec=st.builds(_spec, sizes, sizes, sizes, sizes, st.integers(1, 3), st.booleans()),
    config=st.sampled_from(CONVOLUTIONS),
    seed=st.integers(0, 2**32),
)
def test_permutations_change_no_prediction(spec, config, seed):
    generator = torch.Generator().manual_seed(seed)
    U = random_transformer(spec, 3, generator)
    model = _predictor(U, config)
    assert relative_error(model(CompleteElement.sample_permutations(spec, generator).act(U)), model(U)) < TOLERANCE


def test_permutations_change_no_prediction_on_trained_networks(small, generator):
    U = small.weights(torch.arange(24)).to(torch.float64)
    for config in CONVOLUTIONS:
        model = _predictor(U, config)
        before = model.predict(U)
        assert before.std() > 1e-4
        after = model.predict(CompleteElement.sample_permutations(small.spec, generator).act(U))
        assert (after - before).abs().max() < TOLERANCE


def _only(part: str, spec: TransformerSpec, generator: torch.Generator) -> CompleteElement:
    """A random element of the complete group that is the identity but for one part."""
    whole, identity = CompleteElement.sample(spec, generator, condition=10.0), CompleteElement.identity(spec)
    if part == "embedding shifts":
        return replace(identity, embedding=whole.embedding)
    if part in ("classifier scales", "classifier shifts"):
        name = {"classifier scales": "c", "classifier shifts": "u"}[part]
        return replace(identity, classifier=replace(identity.classifier, **{name: getattr(whole.classifier, name)}))
    blocks = []
    for some, nothing in zip(whole.blocks, identity.blocks, strict=True):
        g, one = some.published, nothing.published
        blocks.append(
            {
                "GL(D_k)": replace(nothing, published=replace(one, M=g.M, M_inverse=g.M_inverse)),
                "GL(D_v)": replace(nothing, published=replace(one, N=g.N, N_inverse=g.N_inverse)),
                "rotations after the attention": replace(nothing, R_O=some.R_O),
                "rotations after the block": replace(nothing, R_B=some.R_B),
                "hidden scales": replace(nothing, c_A=some.c_A),
                "scales": replace(nothing, c_O=some.c_O, c_B=some.c_B),
                "shifts": replace(nothing, shifts=some.shifts),
            }[part]
        )
    return replace(identity, blocks=tuple(blocks))


@pytest.mark.parametrize(
    "part",
    [
        "GL(D_k)",
        "GL(D_v)",
        "rotations after the attention",
        "rotations after the block",
        "hidden scales",
        "scales",
        "shifts",
        "embedding shifts",
        "classifier scales",
        "classifier shifts",
    ],
)
@pytest.mark.parametrize("config", CONVOLUTIONS[:2], ids=lambda config: config.options["graph_conv"])
def test_to_nothing_else_of_the_group_is_it_invariant(part, config, generator):
    spec = _spec()
    U = random_transformer(spec, 3, generator)
    model = _predictor(U, config)
    assert relative_error(model(_only(part, spec, generator).act(U)), model(U)) > 1e-5


def test_pixels_tokens_and_classes_are_told_apart(generator):
    U = random_transformer(_spec(), 3, generator)
    model = _predictor(U)
    before, embedding, classifier = model(U), U.embedding, U.classifier
    for changed in (
        replace(U, embedding=replace(embedding, conv_weight=embedding.conv_weight.flip(-1))),
        replace(U, embedding=replace(embedding, pos_embedding=embedding.pos_embedding.flip(2))),
        replace(
            U,
            classifier=replace(
                classifier,
                weights=(classifier.weights[0], classifier.weights[1].flip(2)),
                biases=(classifier.biases[0], classifier.biases[1].flip(2)),
            ),
        ),
    ):
        assert relative_error(model(changed), before) > 1e-5


def test_the_positional_encoding_alone_tells_coordinates_apart(generator):
    """Permuting them with the encoding and all else that reads or writes them is no change of the function."""
    U = random_transformer(_spec(), 3, generator)
    model, order = _predictor(U), torch.randperm(6, generator=generator)
    first, embedding = U.blocks[0], U.embedding
    read = {name: getattr(first, name)[:, :, :, order] for name in ("W_Q", "W_K", "W_V")}
    written = {name: getattr(embedding, name)[:, :, order] for name in ("conv_weight", "conv_bias")}
    moved = replace(U, blocks=(replace(first, **read), *U.blocks[1:]), embedding=replace(embedding, **written))
    assert relative_error(model(moved), model(U)) > 1e-5
    encoded = replace(moved.embedding, pos_embedding=embedding.pos_embedding[..., order])
    assert relative_error(model(replace(moved, embedding=encoded)), model(U)) < TOLERANCE


@pytest.mark.parametrize("with_embedding", [True, False])
@pytest.mark.parametrize("config", CONVOLUTIONS[:2], ids=lambda config: config.options["graph_conv"])
def test_every_tensor_is_seen_and_every_parameter_learns(config, with_embedding, generator):
    U = random_transformer(_spec(with_embedding=with_embedding), 4, generator)
    model = _predictor(U, config)
    before, count = model(U), len(U.tensors())
    for place in range(count):
        tensors = [tensor.clone() for tensor in U.tensors()]
        tensors[place] += torch.randn(tensors[place].shape, generator=generator, dtype=torch.float64)
        changed = iter(tensors)
        assert relative_error(model(U.map(lambda _, changed=changed: next(changed))), before) > 1e-5, place
    model(U).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_large_batches_are_read_in_parts(generator, monkeypatch):
    U = random_transformer(_spec(), 7, generator)
    model = _predictor(U)
    whole, sizes, encode = model(U), [], model.encoder._encode
    numbers = 2 * 8 * model.encoder.edge_index.shape[1]
    monkeypatch.setattr(graph_encoder, "_NUMBERS_AT_ONCE", {"cpu": numbers})
    monkeypatch.setattr(model.encoder, "_encode", lambda part, keys: sizes.append(len(part)) or encode(part, keys))
    assert relative_error(model(U), whole) < 1e-12
    assert sizes == [2, 2, 2, 1]


@pytest.mark.parametrize("config", CONVOLUTIONS[:2], ids=lambda config: config.options["graph_conv"])
def test_parts_of_a_batch_drop_and_learn_what_the_whole_does(config, generator, monkeypatch):
    U, found = random_transformer(_spec(), 7, generator), []
    model = _predictor(U, replace(config, dropout=0.3)).train()
    features = replace(model.featurize(U), network=torch.arange(10, 17))
    model.begin_epoch(5)
    for numbers in (1 << 22, 3 * 8 * model.encoder.edge_index.shape[1]):
        monkeypatch.setattr(graph_encoder, "_NUMBERS_AT_ONCE", {"cpu": numbers})
        model.zero_grad()
        logits = model.from_features(features)
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(relative_error(part, whole) < 1e-9 for whole, part in zip(*found, strict=True))


def test_in_single_precision_permutations_move_little(small, generator):
    U = small.weights(torch.arange(24))
    for config in CONVOLUTIONS:
        model = build_predictor(U.spec, config, seed=1)
        model.fit_normalization([model.featurize(U)])
        element = CompleteElement.sample_permutations(small.spec, generator, dtype=torch.float32)
        assert relative_error(model(element.act(U)), model(U)) < 1e-4


def test_double_precision_predicts_what_single_does(small):
    """Scales that were learned in single precision meet numbers in double."""
    U = small.weights(torch.arange(24))
    for config in CONVOLUTIONS:
        model = build_predictor(U.spec, config, seed=1)
        model.fit_normalization([model.featurize(U)])
        before = model(U)
        assert relative_error(model.double()(U.to(torch.float64)).float(), before) < 1e-4


def test_gradients_have_the_same_bits_each_time(small):
    U = small.weights(torch.arange(16))
    model = build_predictor(U.spec, CONFIG, seed=1)
    features, found, threads = model.featurize(U), [], torch.get_num_threads()
    torch.set_num_threads(4)
    for _ in range(5):
        model.zero_grad()
        model.from_features(features).sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(found[0], again, strict=True))
