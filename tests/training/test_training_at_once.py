"""Several runs at once, several processes, streamed batches, compiled steps: each gives what the plain way gives."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from trainings import SMALL_MODES, assert_equal, build_run, finished_epochs, stop_after

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training import batches as training_batches
from nfn_transformer.training import step as training_step
from nfn_transformer.training.batches import StoredFeatures, StreamedFeatures, read_features
from nfn_transformer.training.config import OPTIMIZERS
from nfn_transformer.training.data import Split, prepare, split_runs
from nfn_transformer.training.loop import train
from nfn_transformer.training.number_tasks import RegressTask
from nfn_transformer.training.step import Step

pytestmark = pytest.mark.usefixtures("quick_python")

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
    ModelConfig("probe", "no", "no", options={"probes": 3, "probe_generator": "linear"}),
]


@pytest.mark.parametrize("model_config", [*MODES, *SMALL_MODES], ids=lambda config: f"{config.name}-{config.ensemble}")
def test_seeds_at_once_are_what_each_is_alone(new_run, few, model_config):
    settings = {"model_config": model_config, "batch_size": 6, "epochs": 2}
    together = [new_run(seed, few, **settings) for seed in (1, 2)]
    train(together)
    for seed, found in zip((1, 2), together, strict=True):
        alone = new_run(seed, few, **settings)
        train([alone])
        assert_equal(found, alone)
    first, second = (next(reversed(list(one.model.parameters()))) for one in together[:2])
    assert relative_error(first, second) > 1e-3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_seeds_at_once_with_every_optimizer(new_run, optimizer):
    together = [new_run(seed, optimizer=optimizer, wd=1e-2, epochs=2) for seed in (4, 5)]
    train(together)
    alone = new_run(5, optimizer=optimizer, wd=1e-2, epochs=2)
    train([alone])
    assert_equal(together[1], alone)


def test_seeds_at_once_with_labels_on_scales_of_their_own(new_run):
    tasks = [RegressTask(mean=mean, deviation=deviation) for mean, deviation in ((0.2, 0.5), (0.9, 3.0))]
    settings = {"model_config": ModelConfig(enc_mode="statnn", cls_mode="statnn"), "epochs": 2}
    together = [new_run(seed, task=task, **settings) for seed, task in enumerate(tasks)]
    train(together)
    for seed, task in enumerate(tasks):
        alone = new_run(seed, task=task, **settings)
        train([alone])
        assert_equal(together[seed], alone)


def test_seeds_at_once_on_zoos_of_their_own(new_run, double):
    """Enlarged zoos differ from seed to seed."""
    zoos = [replace(double, rows=double.rows * scale) for scale in (1.0, 1.1)]
    together = [new_run(seed, zoo) for seed, zoo in enumerate(zoos)]
    train(together)
    for seed, zoo in enumerate(zoos):
        alone = new_run(seed, zoo)
        train([alone])
        assert_equal(together[seed], alone)


def test_training_sides_of_different_sizes_take_turns(new_run, double):
    whole = split_runs(double.runs, 1)
    smaller = Split(whole.train[:-5], whole.validation, whole.test)
    together = [new_run(1, split=split) for split in (whole, smaller, whole)]
    train(together)
    for found, split in zip(together, (whole, smaller, whole), strict=True):
        alone = new_run(1, split=split)
        train([alone])
        assert_equal(found, alone)


def test_a_seed_that_diverges_leaves_the_others_alone(new_run):
    def poison(record):
        if record.number == 1:
            with torch.no_grad():
                together[1].model.output.bias.fill_(math.nan)

    together = [new_run(seed, report=poison if seed == 2 else None) for seed in (1, 2, 3)]
    train(together)
    assert together[1].history.diverged.startswith("epoch 2: the loss is not finite")
    for seed in (1, 3):
        alone = new_run(seed)
        train([alone])
        assert_equal(together[seed - 1], alone)


def test_seeds_at_once_go_on_where_they_stopped_each_by_itself(new_run):
    """One of them has an epoch more than the other, as after a kill between their files."""
    alone = [new_run(seed) for seed in (1, 2)]
    for one in alone:
        train([one])
    broken = [new_run(seed) for seed in (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        stop_after(broken[0], 2)
    with pytest.raises(KeyboardInterrupt):
        stop_after(broken[1], 1)
    again = [new_run(seed) for seed in (1, 2)]
    for one, before in zip(again, broken, strict=True):
        one.directory = before.directory
        one.load_state()
    assert [finished_epochs(one) for one in again] == [2, 1]
    train(again)
    for found, expected in zip(again, alone, strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize("n_workers", [0, 3])
def test_streamed_batches_are_those_in_memory(new_run, n_workers):
    streamed, in_memory = new_run(), new_run()
    train([streamed], stream=True, n_workers=n_workers)
    train([in_memory], stream=False)
    assert_equal(streamed, in_memory)
    together = [new_run(seed) for seed in (1, 2)]
    train(together, stream=True, n_workers=n_workers)
    assert_equal(together[0], in_memory)


@pytest.mark.parametrize(("free", "kind"), [(1 << 40, StoredFeatures), (1, StreamedFeatures)])
def test_a_zoo_is_streamed_where_its_features_do_not_fit(new_run, monkeypatch, free, kind):
    monkeypatch.setattr(training_batches, "free_bytes", lambda device: free)
    run = new_run(epochs=1)
    assert type(read_features([run])[run]) is kind
    train([run])
    assert finished_epochs(run) == 1


def test_a_large_batch_in_pieces_is_the_batch(new_run, monkeypatch):
    whole, together = new_run(batch_size=42), [new_run(seed, batch_size=42) for seed in (1, 2)]
    train([whole])
    monkeypatch.setattr(training_step, "NETWORKS_AT_ONCE", 20)
    in_pieces = new_run(batch_size=42)
    train([in_pieces])
    assert_equal(in_pieces, whole)
    train(together)
    assert_equal(together[0], whole)


# Compiling kernels takes most of a minute: the large models are traced, and a small one is compiled, with dropout. The
# sizes are those of a whole batch, and of an epoch's last.
COMPILED = (
    (ModelConfig("inv", "no", "no"), "aot_eager", (16, 10)),
    (ModelConfig("complete", "no", "no", dropout=0.4, ensemble=2), "aot_eager", (16,)),
    (ModelConfig("mlp", "no", "no", dropout=0.4), "inductor", (16,)),
)


# PyTorch's compiler warns of PyTorch's own older compiler.
@pytest.mark.without_shape_checks
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_compiled_step_gives_the_numbers_of_a_plain_one(small, monkeypatch):
    """One test, as each starts a process that imports the compiler."""
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # processes that compile would import PyTorch
    compile_with = torch.compile
    for model_config, backend, sizes in COMPILED:
        monkeypatch.setattr(torch, "compile", partial(compile_with, backend=backend))
        compiled, plain = (build_predictor(small.spec, model_config, seed=1) for _ in range(2))
        data = prepare(small, split_runs(small.runs, 1))
        # At this rate the step before changes nothing.
        steps = [
            Step([build_run(model, data, None, compile=flag, batch_size=16, lr=1e-30)])
            for model, flag in ((compiled, True), (plain, False))
        ]
        for size in sizes:
            features, labels = plain.featurize(small.weights(torch.arange(size))), small.labels[:size]
            features = replace(features, network=torch.arange(size))
            found, expected = (step(features, labels, size) for step in steps)
            assert found.item() == pytest.approx(expected.item(), rel=1e-5), model_config
            for a, b in zip(compiled.parameters(), plain.parameters(), strict=True):
                assert relative_error(a.grad, b.grad) < 1e-4, model_config


def test_bfloat16_rounds_and_still_learns(new_run):
    rough, exact = (new_run(amp=flag, epochs=15) for flag in (True, False))
    for one in (rough, exact):
        one.model.float()
        one.data = replace(one.data, zoo=replace(one.data.zoo, rows=one.data.zoo.rows.float()))
        train([one])
    losses = [[entry.train_loss for entry in one.history.records] for one in (rough, exact)]
    assert 1e-7 < abs(losses[0][0] - losses[1][0]) < 1e-2
    assert losses[0][-1] < losses[0][0] - 0.02
    assert all(parameter.dtype == torch.float32 for parameter in rough.model.parameters())


def test_a_training_that_goes_on_keeps_the_scales_that_it_began_with(new_run):
    whole = ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no")
    unbroken, broken, again = (new_run(2, model_config=whole) for _ in range(3))
    train([unbroken])
    with pytest.raises(KeyboardInterrupt):
        stop_after(broken, 2)
    again.directory = broken.directory
    again.load_state()
    scale = again.model.encoder.rest_scale
    assert torch.equal(scale.mean, unbroken.model.encoder.rest_scale.mean)
    assert scale.mean.abs().max() > 0
    train([again])
    assert_equal(again, unbroken)
