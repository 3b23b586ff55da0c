"""Several runs at once, several processes, streamed batches, compiled steps: each gives what the plain way gives."""

import math
from dataclasses import replace

import pytest
import torch
from trainings import SMALL_MODES, assert_equal, stop_after

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training import feature_store
from nfn_transformer.training import loop as training_loop
from nfn_transformer.training import step as training_step
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.feature_store import FeatureStore
from nfn_transformer.training.loop import Feeding, train
from nfn_transformer.training.optimizer import OPTIMIZERS
from nfn_transformer.training.step import build_step
from nfn_transformer.training.streaming import StreamedZoo
from nfn_transformer.zoo.split import Split, split_runs

MODES = [
    ModelConfig(options={"transformers_nfn_channels": (3, 2)}),
    ModelConfig(cls_mode="hnps"),
    ModelConfig(enc_mode="no", cls_mode="magep"),
    ModelConfig(enc_mode="no", cls_mode="np"),
    ModelConfig(enc_mode="no", cls_mode="nft"),
    ModelConfig(enc_mode="statnn", cls_mode="statnn"),
    ModelConfig(enc_mode="mlp", emb_mode="no"),
    ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no"),
    ModelConfig("graph", "no", "no", options={"graph_dim": 4, "graph_layers": 2, "graph_conv": "attention"}),
]


@pytest.mark.parametrize("model_config", [*MODES, *SMALL_MODES], ids=lambda config: f"{config.name}-{config.ensemble}")
def test_seeds_at_once_are_what_each_is_alone(new_trainer, model_config):
    together = [new_trainer(seed, model_config=model_config) for seed in (1, 2, 3)]
    train(together)
    for seed, found in zip((1, 2, 3), together, strict=True):
        alone = new_trainer(seed, model_config=model_config)
        train([alone])
        assert_equal(found, alone)
    first, second = (next(reversed(list(one.model.parameters()))) for one in together[:2])
    assert relative_error(first, second) > 1e-3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_seeds_at_once_with_every_optimizer(new_trainer, optimizer):
    together = [new_trainer(seed, optimizer=optimizer, wd=1e-2, epochs=2) for seed in (4, 5)]
    train(together)
    alone = new_trainer(5, optimizer=optimizer, wd=1e-2, epochs=2)
    train([alone])
    assert_equal(together[1], alone)


def test_seeds_at_once_on_zoos_of_their_own(new_trainer, double):
    """Enlarged zoos differ from seed to seed."""
    zoos = [replace(double, rows=double.rows * scale) for scale in (1.0, 1.1)]
    together = [new_trainer(seed, zoo) for seed, zoo in enumerate(zoos)]
    train(together)
    for seed, zoo in enumerate(zoos):
        alone = new_trainer(seed, zoo)
        train([alone])
        assert_equal(together[seed], alone)


def test_training_sides_of_different_sizes_take_turns(new_trainer, double):
    whole = split_runs(double.runs, 1)
    smaller = Split(whole.train[:-5], whole.validation, whole.test)
    together = [new_trainer(1, split=split) for split in (whole, smaller, whole)]
    train(together)
    for found, split in zip(together, (whole, smaller, whole), strict=True):
        alone = new_trainer(1, split=split)
        train([alone])
        assert_equal(found, alone)


def test_a_seed_that_diverges_leaves_the_others_alone(new_trainer):
    def poison(record):
        if record.epoch == 1:
            with torch.no_grad():
                together[1].model.output.bias.fill_(math.nan)

    together = [new_trainer(seed, report=poison if seed == 2 else lambda record: None) for seed in (1, 2, 3)]
    train(together)
    assert together[1].progress.diverged.startswith("epoch 2: the loss is not finite")
    for seed in (1, 3):
        alone = new_trainer(seed)
        train([alone])
        assert_equal(together[seed - 1], alone)


def test_seeds_at_once_go_on_where_they_stopped_each_by_itself(new_trainer):
    """One of them has an epoch more than the other, as after a kill between their files."""
    alone = [new_trainer(seed) for seed in (1, 2)]
    for one in alone:
        train([one])
    broken = [new_trainer(seed) for seed in (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        stop_after(broken[0], 2)
    with pytest.raises(KeyboardInterrupt):
        stop_after(broken[1], 1)
    again = [new_trainer(seed) for seed in (1, 2)]
    for one, before in zip(again, broken, strict=True):
        one.run = before.run
        one.resume()
    assert [one.finished_epochs for one in again] == [2, 1]
    train(again)
    for found, expected in zip(again, alone, strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize("n_workers", [0, 3])
def test_streamed_batches_are_those_in_memory(new_trainer, n_workers):
    streamed, in_memory = new_trainer(), new_trainer()
    train([streamed], Feeding(stream=True, n_workers=n_workers))
    train([in_memory], Feeding(stream=False))
    assert_equal(streamed, in_memory)
    together = [new_trainer(seed) for seed in (1, 2)]
    train(together, Feeding(stream=True, n_workers=n_workers))
    assert_equal(together[0], in_memory)


@pytest.mark.parametrize(("free", "kind"), [(1 << 40, FeatureStore), (1, StreamedZoo)])
def test_a_zoo_is_streamed_where_its_features_do_not_fit(new_trainer, monkeypatch, free, kind):
    made = []
    monkeypatch.setattr(feature_store, "free_bytes", lambda device: free)
    for source in (FeatureStore, StreamedZoo):
        monkeypatch.setattr(training_loop, source.__name__, lambda *words, own=source: made.append(own) or own(*words))
    train([new_trainer(epochs=1)])
    assert made == [kind]


def test_a_large_batch_in_pieces_is_the_batch(new_trainer, monkeypatch):
    whole, together = new_trainer(batch_size=42), [new_trainer(seed, batch_size=42) for seed in (1, 2)]
    train([whole])
    monkeypatch.setattr(training_step, "NETWORKS_AT_ONCE", 20)
    in_pieces = new_trainer(batch_size=42)
    train([in_pieces])
    assert_equal(in_pieces, whole)
    train(together)
    assert_equal(together[0], whole)


# PyTorch's compiler warns of PyTorch's own older compiler.
@pytest.mark.without_shape_checks
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "model_config",
    [ModelConfig("inv", "no", "no"), ModelConfig("complete", "no", "no", dropout=0.4, ensemble=2)],
    ids=lambda config: config.name,
)
def test_a_compiled_step_gives_the_numbers_of_a_plain_one(small, model_config):
    model = build_predictor(small.spec, model_config, seed=1)
    compiled, plain = (build_step(model, TrainingConfig(compile=flag, batch_size=16)) for flag in (True, False))
    for size in (16, 10):  # a whole batch, and an epoch's last
        features, labels = model.featurize(small.weights(torch.arange(size))), small.labels[:size]
        features = features.of_networks(torch.arange(size))
        found = compiled(features, labels, size), [parameter.grad for parameter in model.parameters()]
        expected = plain(features, labels, size), [parameter.grad for parameter in model.parameters()]
        assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
        assert max(relative_error(*pair) for pair in zip(found[1], expected[1], strict=True)) < 1e-4


def test_bfloat16_rounds_and_still_learns(new_trainer):
    rough, exact = (new_trainer(amp=flag, epochs=15) for flag in (True, False))
    for one in (rough, exact):
        one.model.float()
        one.data = replace(one.data, zoo=replace(one.data.zoo, rows=one.data.zoo.rows.float()))
        train([one])
    losses = [[entry.train_loss for entry in one.progress.history] for one in (rough, exact)]
    assert 1e-7 < abs(losses[0][0] - losses[1][0]) < 1e-2
    assert losses[0][-1] < losses[0][0] - 0.02
    assert all(parameter.dtype == torch.float32 for parameter in rough.model.parameters())


def test_a_training_that_goes_on_keeps_the_scales_that_it_began_with(new_trainer):
    whole = ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no")
    unbroken, broken, again = (new_trainer(2, model_config=whole) for _ in range(3))
    train([unbroken])
    with pytest.raises(KeyboardInterrupt):
        stop_after(broken, 2)
    again.run = broken.run
    again.resume()
    scale = again.model.encoder.rest_scale
    assert torch.equal(scale.mean, unbroken.model.encoder.rest_scale.mean)
    assert scale.mean.abs().max() > 0
    train([again])
    assert_equal(again, unbroken)
