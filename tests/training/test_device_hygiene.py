"""No tensor stays behind on the CPU: all that trains and predicts runs on a second device, of tensors without numbers.

Not here: mixed precision, compiled steps, CUDA graphs, and what fits a GPU.
"""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from fake_device import DEVICE, second_device
from measuring import random_zoo
from torch import nn
from trainings import build_run

from nfn_transformer.generation.cnn_population import CnnPlan, CnnPopulation
from nfn_transformer.generation.cnn_recipe import CnnSettings
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, ZooRun
from nfn_transformer.generation.images import digits
from nfn_transformer.generation.optimizers import RULES
from nfn_transformer.generation.population import Population
from nfn_transformer.generation.siren_fits import SirenPlan, fit_sirens
from nfn_transformer.generation.training_plan import TrainingPlan
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.models.registry import ENCODER, entries
from nfn_transformer.training.class_task import ClassTask
from nfn_transformer.training.config import OPTIMIZERS
from nfn_transformer.training.data import prepare, split_runs
from nfn_transformer.training.edit_task import EditTask
from nfn_transformer.training.loop import train
from nfn_transformer.training.number_tasks import AccuracyTask
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.trained_predictor import TrainedNetwork
from nfn_transformer.weights.feed_forward_pass import pixel_grid
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, NetworkSpec, TransformerSpec
from nfn_transformer.zoo.several_sizes import MixedZoo

SPEC = TransformerSpec((BlockSpec(2, 4, 2, 2, 5),), FeedForwardSpec((4, 5, 3)), EmbeddingSpec(1, 4, (2, 2), 4))
CHANNELS, HEAD = {"transformers_nfn_channels": (3, 2)}, {"classifier_nfn_channels": (3, 3)}
GRAPH = {"graph_dim": 4, "graph_layers": 2}
TINY = ModelConfig("no", "no", "mlp")
MODELS = [
    ModelConfig("inv", "np", "mlp", options=CHANNELS | HEAD),
    ModelConfig("complete", "hnp", "no", options=HEAD),
    ModelConfig("graph", "hnps", "no", options=GRAPH | HEAD),
    ModelConfig("graph", "magep", "no", options=GRAPH | HEAD | {"graph_conv": "attention"}),
    ModelConfig("statnn", "nft", "no", options=CHANNELS | HEAD),
    ModelConfig("mlp", "statnn", "mlp", options=CHANNELS | HEAD),
    ModelConfig("no", "mlp", "no", options=HEAD),
]
INR = NetworkSpec((2, 4, 4, 1), (None,) * 3, "sine", 30.0, offset=0.5)
CNN = NetworkSpec((1, 3, 4, 2), ((3, 3), (3, 3), None), strides=(2, 1))
NETWORK_ENCODERS = {name: entry for name, entry in entries(ENCODER).items() if NetworkSpec.family in entry.families}


@pytest.fixture
def entered():
    with second_device() as enter:
        yield enter


@pytest.fixture
def runs(entered, tmp_path):
    """Return what makes runs of fake models on the device and of a fake zoo on the CPU, one for each seed."""

    def make(config, seeds, zoo=None, change=lambda model: model, task=None, **settings):
        zoo = random_zoo(SPEC, 12) if zoo is None else zoo
        task = task or AccuracyTask()
        kind = {"outputs": task.outputs, "kind": task.predictor}
        models = [change(build_predictor(zoo.spec, config, seed, **kind)).to(DEVICE) for seed in seeds]
        models, data = entered(models, [prepare(zoo, split_runs(zoo.runs, seed)) for seed in seeds])
        settings = {"epochs": 1, "warmup_epochs": 0, "lr": 1e-3, **settings}
        made = [
            build_run(model, of_seed, RunDirectory(tmp_path), seed, task=task, **settings)
            for model, of_seed, seed in zip(models, data, seeds, strict=True)
        ]
        for run in made:
            run.writes = False
        return made

    return make


def assert_trained(runs):
    """Fail unless all epochs are done, and parameters, buffers and the optimizer's state are on the device."""
    for run in runs:
        assert len(run.history.records) == run.config.training.epochs
        state = [value for kept in run.optimizer.state.values() for value in kept.values()]
        moments = [value for value in state if isinstance(value, torch.Tensor) and value.ndim]
        for tensor in (*run.model.parameters(), *run.model.buffers(), *moments):
            assert tensor.device == DEVICE


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{model.options.get('graph_conv', '')}")
def test_one_training_by_streamed_batches(runs, model):
    made = runs(model, (1,))
    train(made, stream=True)
    assert_trained(made)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{model.options.get('graph_conv', '')}")
def test_two_trainings_at_once_with_what_helps_on_small_zoos(runs, model):
    logs = model.enc_mode in ("graph", "statnn", "mlp") or model.cls_mode == "mlp"
    members = 2 if model == MODELS[-1] else 1
    helped = replace(model, dropout=0.3, standardize=True, log_magnitudes=logs, ensemble=members)
    made = runs(helped, (1, 2))
    train(made, stream=False)
    assert_trained(made)


@pytest.mark.parametrize(("spec", "seeds"), [(INR, (1, 2)), (CNN, (1,))], ids=["two of INRs", "one of CNNs"])
@pytest.mark.parametrize("name", NETWORK_ENCODERS)
def test_encoders_of_feed_forward_networks(runs, name, spec, seeds):
    settings = {flag: {"graph_probes": 3}.get(flag, e.default) for flag, e in NETWORK_ENCODERS[name].settings.items()}
    narrow = {flag: (3, 3) if isinstance(value, tuple) else value for flag, value in settings.items()}
    made = runs(ModelConfig(name, "no", "no", options=narrow), seeds, random_zoo(spec, 12))
    train(made, stream=False)
    assert_trained(made)


@pytest.mark.parametrize("seeds", [(1, 2)])
def test_classes(runs, seeds):
    made = runs(replace(TINY, ensemble=2), seeds, task=ClassTask(classes=("a", "b", "c")))
    train(made)
    assert_trained(made)


@pytest.mark.parametrize("name", ["hnp", "graph"])
def test_editors_of_inrs(runs, name):
    task = EditTask(side=4)
    settings = {flag: {"graph_probes": 0}.get(flag, e.default) for flag, e in NETWORK_ENCODERS[name].settings.items()}
    narrow = {flag: (3, 3) if isinstance(value, tuple) else value for flag, value in settings.items()}
    zoo = random_zoo(INR, 12)
    zoo = replace(zoo, labels=task.labels_of(zoo))
    made = runs(ModelConfig(name, "no", "no", options=narrow), (1,), zoo, task=task)
    train(made, stream=False)
    assert_trained(made)


def test_networks_of_several_sizes_that_read_texts(runs):
    specs = [replace(SPEC, blocks=SPEC.blocks * count, embedding=None) for count in (1, 2)]
    zoo = MixedZoo(tuple(random_zoo(spec, 10) for spec in specs))
    made = runs(ModelConfig("complete", "no", "no"), (1,), zoo)
    train(made, stream=False)
    assert_trained(made)


@pytest.mark.parametrize("ensemble", [1, 2])
def test_predictions_are_on_the_cpu(runs, ensemble):
    (made,) = runs(replace(TINY, ensemble=ensemble), (1,))
    zoo, index = made.data.zoo, torch.arange(len(made.data.zoo))
    predictor = TrainedNetwork(made.model, DEVICE)
    for logits in (predictor.outputs(zoo, index), predictor.outputs_of(zoo.weights(index))):
        assert (logits.device.type, logits.shape) == ("cpu", index.shape)


@pytest.mark.parametrize(("optimizer", "seeds"), [("adam", (1,)), *((name, (1, 2)) for name in OPTIMIZERS)])
def test_steps_of_every_optimizer_and_more_that_go_on(runs, optimizer, seeds):
    made = runs(TINY, seeds, optimizer=optimizer, wd=1e-2, batch_size=4)
    train(made)
    for run in made:
        run.config = replace(run.config, training=replace(run.config.training, epochs=2))
    train(made)
    assert_trained(made)


def test_making_a_population(entered):
    """Each step ends an epoch of all networks, as the answers are; the first weights are drawn in earnest."""
    spec = TransformerSpec((BlockSpec(2, 4, 2, 2, 5),), FeedForwardSpec((4, 4, 10)), EmbeddingSpec(1, 4, (4, 4), 4))
    plan = TrainingPlan(spec, seed=0, batch_size=8, crop_padding=1, snapshots=("100", "best"), half=True)
    settings = [Hyperparameters(optimizer, 0.3, 1e-4, 1.0, 0.1, 0.01) for optimizer in RULES]
    runs = [ZooRun(number, setting, Architecture(4, 2, 1, 5), epochs=2) for number, setting in enumerate(settings)]
    (population,) = entered(Population(plan, runs, digits().limited(16, 16).to(DEVICE)))
    for _ in range(2):
        population.step()
    assert {tensor.device for tensor in population.state().values()} == {DEVICE}
    trained = population.trained()
    found = [tensor for of in trained.snapshots.values() for tensor in (of.correct, *of.state.values())]
    assert {tensor.device.type for tensor in (trained.diverged, *found)} == {"cpu"}


def test_making_cnns(entered):
    """Each step ends an epoch of all networks, as the answers are."""
    plan = CnnPlan(maps=(1, 3, 3), classes=10, batch_size=8, seed=0, snapshots=(1, 2), half=True)
    settings = [CnnSettings("relu", "he_normal", 0.1, 1e-3, 0.2, 1.0, optimizer, 0.01) for optimizer in RULES]
    data = digits().limited(16, 16).to(DEVICE)
    (population,) = entered(CnnPopulation(plan, range(len(settings)), settings, data.train, data.test))
    for _ in range(2):
        population.step()
    assert {tensor.device.type for tensor in vars(population.trained).values()} == {"cpu"}


def test_fitting_sirens(entered):
    plan = SirenPlan((2, 4, 1), steps=2)
    targets, grid = entered(torch.rand(3, 1, 4).to(DEVICE), pixel_grid(2, 2).to(DEVICE))
    fits = fit_sirens(plan, targets, grid, [torch.Generator() for _ in range(3)])
    assert {tensor.device for tensor in vars(fits).values()} == {DEVICE}


class Shifted(nn.Linear):
    """A layer that adds a constant: a buffer in the right `way`, otherwise a tensor on the CPU."""

    def __init__(self, way, inputs):
        super().__init__(inputs, 1)
        self.way, self.attribute = way, torch.ones(1)
        self.register_buffer("moved", torch.ones(1))

    def forward(self, numbers):
        places = torch.zeros(len(numbers), 1, dtype=torch.int64, device=numbers.device)
        constants = {
            "buffer": lambda: self.moved,
            "attribute": lambda: self.attribute,
            "made anew": lambda: torch.ones(1),
            "added to": lambda: torch.zeros(len(numbers), 1).add_(self.moved),
            "looked up": lambda: self.attribute[places],
        }
        return super().forward(numbers) + constants[self.way]()


@pytest.mark.parametrize("seeds", [(1,), (1, 2)], ids=["one", "two"])
@pytest.mark.parametrize("way", ["buffer", "attribute", "made anew", "added to", "looked up"])
def test_a_constant_on_the_cpu_is_found(runs, way, seeds):
    def change(model):
        model.output = Shifted(way, model.output.in_features)
        return model

    made = runs(TINY, seeds, change=change)
    with nullcontext() if way == "buffer" else pytest.raises(RuntimeError, match="on the same device"):
        train(made)
