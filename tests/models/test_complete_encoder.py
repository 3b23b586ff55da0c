"""The encoder for whole networks: invariant to the complete group, with parameters of one number for all sizes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_transformer

from nfn_transformer.errors import SpecError
from nfn_transformer.features import probes
from nfn_transformer.features.invariants import block_invariant_names
from nfn_transformer.features.probes import PROBES, family_names, probe_tokens
from nfn_transformer.features.propagation import block_invariants, normalize, signal_invariants
from nfn_transformer.groups.complete import CompleteElement
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models.complete_encoder import CompleteEncoder
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.encoders.complete import CompleteConfig
from nfn_transformer.models.predictor import SinglePredictor, build_predictor
from nfn_transformer.weights.containers import FeedForwardWeights, TransformerWeights
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

TOLERANCE = 1e-9
CONFIG = ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no")


def _spec(heads=2, key=3, value=2, hidden=5, blocks=2, classes=3, with_embedding=True) -> TransformerSpec:
    block = BlockSpec(heads, 6, key, value, hidden)
    embedding = EmbeddingSpec(2, 6, (2, 3), 6) if with_embedding else None
    return TransformerSpec((block,) * blocks, FeedForwardSpec((6, 5, classes)), embedding)


sizes = st.integers(1, 4)
specs = st.builds(_spec, sizes, sizes, sizes, sizes, st.integers(1, 3), st.integers(2, 4), st.booleans())


def _predictor(spec: TransformerSpec, weights: TransformerWeights) -> SinglePredictor:
    model = build_predictor(spec, CONFIG, seed=1).double()
    model.fit_normalization([model.featurize(weights)])
    return model


@settings(max_examples=25, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32))
def test_the_complete_group_changes_no_prediction(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    U = random_transformer(spec, 3, generator)
    model = _predictor(spec, U)
    before = model(U)
    for _ in range(2):
        after = model(CompleteElement.sample(spec, generator, condition=100.0).act(U))
        assert (after.sigmoid() - before.sigmoid()).abs().max() < TOLERANCE
        block = spec.blocks[0]
        if min(block.heads, block.key, block.value, block.hidden) > 1:
            # One neuron or one direction alone leaves signals that differ by rounding's own size.
            assert (after - before).abs().max() < TOLERANCE * before.abs().max()


def test_it_changes_no_prediction_on_trained_networks(small, generator):
    U = small.weights(torch.arange(24)).to(torch.float64)
    model = _predictor(small.spec, U)
    before = model.predict(U)
    assert before.std() > 1e-4
    for _ in range(3):
        after = model.predict(CompleteElement.sample(small.spec, generator, condition=100.0).act(U))
        assert (after - before).abs().max() < TOLERANCE


def test_in_single_precision_predictions_move_little(small, generator):
    U = small.weights(torch.arange(24))
    model = build_predictor(small.spec, CONFIG, seed=1)
    model.fit_normalization([model.featurize(U)])
    element = CompleteElement.sample(small.spec, generator, condition=10.0, dtype=torch.float32, amount=0.1)
    before = model(U)
    assert (model(element.act(U)) - before).abs().max() < 0.02 * before.std()


@pytest.mark.parametrize("with_embedding", [True, False])
def test_every_tensor_is_seen_and_every_parameter_learns(generator, with_embedding):
    spec = _spec(with_embedding=with_embedding)
    U = random_transformer(spec, 4, generator)
    model = _predictor(spec, U)
    before = model(U)
    count = len(U.tensors())
    for place in range(count):
        numbers = iter(range(count))
        changed = U.map(
            lambda tensor, place=place, numbers=numbers: (
                tensor + torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                if next(numbers) == place
                else tensor
            )
        )
        assert relative_error(model(changed), before) > 1e-4, place
    model(U).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_one_encoder_has_one_size_for_networks_of_all_sizes(generator):
    small, large = _spec(), _spec(heads=4, key=2, value=5, hidden=17, blocks=4, classes=7)
    wide = TransformerSpec(
        (BlockSpec(4, 32, 8, 8, 64),) * 2, FeedForwardSpec((32, 32, 10)), EmbeddingSpec(1, 32, (7, 7), 16)
    )
    encoder = CompleteEncoder(small, CompleteConfig(outputs=10)).double()
    counts = [
        sum(p.numel() for p in CompleteEncoder(spec, CompleteConfig(outputs=10)).parameters())
        for spec in (small, large, wide)
    ]
    assert counts[0] == counts[1] == counts[2] < 200_000
    texts = [_spec(with_embedding=False), replace(large, embedding=None)]
    assert (
        len({sum(p.numel() for p in CompleteEncoder(spec, CompleteConfig(outputs=10)).parameters()) for spec in texts})
        == 1
    )
    for spec in (small, large):
        other = CompleteEncoder(spec, CompleteConfig(outputs=10)).double()
        other.load_state_dict(encoder.state_dict())
        U = random_transformer(spec, 2, generator)
        assert other.from_features(other.featurize(U)).shape == (2, 10)


def test_networks_are_read_each_by_itself(small):
    index = torch.arange(40)  # more than are read at once
    encoder = CompleteEncoder(small.spec, CompleteConfig(outputs=4))
    together = encoder.featurize(small.weights(index))
    alone = encoder.featurize(small.weights(index[35:36]))
    assert relative_error(together[35:36], alone) < 1e-4


def test_scales_are_those_of_what_was_seen(small):
    encoder = CompleteEncoder(small.spec, CompleteConfig(outputs=4))
    seen = encoder.featurize(small.weights(torch.arange(50)))
    encoder.fit_normalization([seen[:20], seen[20:]])
    standard = encoder.rest_scale(seen.rest)
    inside = (seen.rest - encoder.rest_scale.mean).abs() < 4 * encoder.rest_scale.deviation
    assert standard.abs().max() <= 4
    assert inside.float().mean() > 0.9
    varying = seen.rest.std(0, correction=0) > 0.011
    raw = ((seen.rest - encoder.rest_scale.mean) / encoder.rest_scale.deviation)[:, varying]
    torch.testing.assert_close(raw.mean(0), torch.zeros_like(raw.mean(0)), atol=1e-3, rtol=0)
    torch.testing.assert_close(raw.std(0, correction=0), torch.ones_like(raw.mean(0)), atol=1e-2, rtol=0)
    assert encoder.block_scale.mean.shape == (len(block_invariant_names(small.spec)),)


def test_blocks_are_equivariant_maps_of_signals(generator):
    """The encoder relies on this: after each block the complete group has turned coordinates, and done no more."""
    spec = _spec()
    U = random_transformer(spec, 2, generator)
    element = CompleteElement.sample(spec, generator)
    moved = element.act(U)
    signal = other = normalize(probe_tokens(U, spec)[0])
    torch.testing.assert_close(normalize(probe_tokens(moved, spec)[0]), signal, rtol=1e-9, atol=1e-9)
    for block, moved_block, part in zip(U.blocks, moved.blocks, element.blocks, strict=True):
        signal, numbers = block_invariants(signal, block)
        other, others = block_invariants(other, moved_block)
        torch.testing.assert_close(other, signal @ part.R_B, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(others, numbers, rtol=1e-9, atol=1e-9)
        assert {tuple(values.shape) for values in numbers.values()} == {(2,)}


def test_known_values_of_signals(generator):
    one = torch.randn(1, 1, 1, 8, generator=generator, dtype=torch.float64).expand(1, 5, 6, 8)
    shares = ("common_share", "input_share", "token_share", "other_share")
    same = signal_invariants(normalize(one))
    assert [same[name].exp().item() for name in shares] == pytest.approx([1, 0, 0, 0], abs=1e-5)
    by_input = torch.randn(1, 2000, 1, 8, generator=generator, dtype=torch.float64).expand(1, 2000, 3, 8)
    found = signal_invariants(normalize(by_input))
    assert [found[name].exp().item() for name in shares] == pytest.approx([0, 1, 0, 0], abs=1e-2)
    assert found["input_directions"].exp().item() == pytest.approx(7, abs=0.2)  # mean 0 leaves seven of eight


def test_dead_networks_are_read(generator):
    spec = _spec()
    U = random_transformer(spec, 2, generator).map(torch.zeros_like)
    alive = random_transformer(spec, 2, generator).embedding
    for weights in (U, replace(U, embedding=alive)):
        features = CompleteEncoder(spec, CompleteConfig(outputs=3)).double().featurize(weights)
        assert all(tensor.isfinite().all() for tensor in features.tensors())


def test_the_sign_of_signals_changes_no_prediction(generator):
    """A symmetry beside the group: a LayerNorm of the negative is the negative."""
    spec = _spec()
    U = random_transformer(spec, 3, generator)
    model = _predictor(spec, U)
    first = replace(U.blocks[0], W_O=-U.blocks[0].W_O, W_A=-U.blocks[0].W_A)
    assert relative_error(model(replace(U, blocks=(first, *U.blocks[1:]))), model(U)) < TOLERANCE


def test_which_class_is_which_cannot_be_told(small, generator):
    """No symmetry, but nothing that weights without data could tell: docs/encoders.md says so."""
    U = small.weights(torch.arange(12)).to(torch.float64)
    model = _predictor(small.spec, U)
    order = torch.randperm(10, generator=generator)
    (first, second), (bias, last) = U.classifier.weights, U.classifier.biases
    classifier = FeedForwardWeights((first, second[:, :, order]), (bias, last[..., order]))
    assert relative_error(model(replace(U, classifier=classifier)), model(U)) < TOLERANCE


@pytest.mark.parametrize(
    "spec",
    [
        TransformerSpec((), FeedForwardSpec((6, 5, 3))),
        TransformerSpec((BlockSpec(1, 6, 2, 2, 3),), FeedForwardSpec((6, 5, 4, 3))),
        TransformerSpec((BlockSpec(1, 6, 2, 2, 3), BlockSpec(1, 5, 2, 2, 3)), FeedForwardSpec((5, 5, 3))),
        TransformerSpec((BlockSpec(1, 6, 2, 2, 3),), FeedForwardSpec((7, 5, 3))),
        TransformerSpec((BlockSpec(1, 6, 2, 2, 3),), FeedForwardSpec((6, 5, 3)), EmbeddingSpec(1, 1, (2, 2), 4)),
    ],
)
def test_networks_that_cannot_be_read_are_refused(spec):
    with pytest.raises(SpecError, match="expected blocks, all of one width and a classifier of two layers"):
        CompleteEncoder(spec, CompleteConfig(outputs=3))


@pytest.mark.parametrize("with_embedding", [True, False])
def test_probes_are_the_same_for_all_networks(generator, with_embedding):
    spec = _spec(with_embedding=with_embedding)
    U = random_transformer(spec, 2, generator)
    first = probe_tokens(U, spec)
    for made in (probes._images, probes.random_texts):
        made.cache_clear()
    again = probe_tokens(U, spec)
    assert len(first) == len(family_names(spec))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert all(family.shape[1] == PROBES and family.shape[3] == 6 for family in first)


def test_a_trained_predictor_reads_networks_of_other_sizes(small, generator):
    model = _predictor(small.spec, small.weights(torch.arange(40)).to(torch.float64))
    others = TransformerSpec(
        (BlockSpec(3, 6, 2, 4, 7), BlockSpec(1, 6, 3, 2, 4), BlockSpec(2, 6, 3, 3, 3)),
        FeedForwardSpec((6, 5, 3)),
        EmbeddingSpec(2, 6, (2, 3), 6),
    )
    U = random_transformer(others, 5, generator)
    assert U.spec == others
    assert model.supports(others)
    predicted = model.predict(U)
    assert predicted.shape == (5,)
    assert predicted.std() > 1e-6
    moved = model.predict(CompleteElement.sample(others, generator, condition=100.0).act(U))
    assert (moved - predicted).abs().max() < TOLERANCE


def test_of_other_sizes_only_what_means_the_same_is_read(small, generator):
    without = replace(small.spec, embedding=None)
    deep = replace(small.spec, classifier=FeedForwardSpec((16, 5, 4, 3)))
    model = _predictor(small.spec, small.weights(torch.arange(4)).to(torch.float64))
    for spec in (without, deep):
        assert not model.supports(spec)
        with pytest.raises(SpecError, match=r"expected|embedding"):
            model(random_transformer(spec, 2, generator))
    smaller = replace(small.spec, blocks=small.spec.blocks[:1])
    assert model.supports(smaller)
    mixed = build_predictor(small.spec, replace(CONFIG, cls_mode="mlp"), seed=1)
    assert mixed.supports(small.spec)
    assert not mixed.supports(smaller)
    with pytest.raises(SpecError, match="weights have 1 blocks, expected 2"):
        mixed.double()(random_transformer(smaller, 2, generator))


def test_weights_of_a_wrong_shape_are_refused_also_where_sizes_are_free(small):
    U = small.weights(torch.arange(3))
    model = build_predictor(small.spec, CONFIG, seed=1)
    first = U.blocks[0]
    for name, wrong in (("b_A", first.b_A[..., :1]), ("b_B", first.b_B[..., :1]), ("W_K", first.W_K[..., :1])):
        broken = replace(U, blocks=(replace(first, **{name: wrong}), *U.blocks[1:]))
        with pytest.raises(SpecError, match=f"'{name}' has shape"):
            model(broken)


def test_one_network_with_huge_weights_spoils_no_scale(small):
    U = small.weights(torch.arange(12))
    for factor in (1e5, 1e18, 1e37):
        huge = U.map(lambda tensor, factor=factor: torch.cat([tensor[:1] * factor, tensor[1:]]))
        model = build_predictor(small.spec, CONFIG, seed=1).eval()
        model.fit_normalization([model.featurize(huge)])
        predicted = model.predict(huge)
        assert torch.isfinite(predicted).all()
        assert predicted[1:].std() > 1e-4
