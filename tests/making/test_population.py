"""Networks trained together are what they are alone, and a population learns."""

from dataclasses import replace

import pytest
import torch

from nfn_transformer.making.hyperparameters import Hyperparameters
from nfn_transformer.making.images import ImageData, digits
from nfn_transformer.making.optimizers import RULES
from nfn_transformer.making.population import Population, TrainingPlan, count_correct, lr_factor, train_population
from nfn_transformer.making.recipe import LEARNING_RATES
from nfn_transformer.making.samples import LabelledSamples
from nfn_transformer.making.streams import PopulationBatches, PopulationDropout, initial_state, run_streams
from nfn_transformer.seeding import stream
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

SPEC = TransformerSpec((BlockSpec(2, 8, 4, 4, 12),) * 2, FeedForwardSpec((8, 8, 10)), EmbeddingSpec(1, 8, (4, 4), 4))
PLAN = TrainingPlan(SPEC, seed=5, epochs=4, batch_size=16, crop_padding=1, snapshots=("75",), half=False)
RUNS = [3, 8, 21]


def _data(dtype: torch.dtype, train: int = 80) -> ImageData:
    def cast(part: LabelledSamples) -> LabelledSamples:
        return LabelledSamples(part.inputs.to(dtype), part.labels)

    data = digits().limited(train, 100)
    return replace(data, train=cast(data.train), test=cast(data.test))


def _settings(optimizer: str) -> list[Hyperparameters]:
    lr = LEARNING_RATES[optimizer]
    return [
        Hyperparameters(optimizer, 0.3, 1e-4, 0.8, 0.1, lr[0]),
        Hyperparameters(optimizer, 0.2, 1e-6, 0.8, 0.0, lr[-1]),
        Hyperparameters(optimizer, 0.5, 1e-2, 0.8, 0.2, lr[2]),
    ]


def _trained(runs, settings, data, epochs=2) -> dict[str, torch.Tensor]:
    population = Population(PLAN, runs, settings, data)
    for _ in range(epochs):
        population.train_epoch()
    return {key: tensor.detach() for key, tensor in population.state().items()}


@pytest.mark.parametrize("optimizer", RULES)
def test_a_network_does_not_depend_on_its_company(optimizer):
    data, settings = _data(torch.float64), _settings(optimizer)
    together = _trained(RUNS, settings, data)
    for place, run in enumerate(RUNS):
        alone = _trained([run], [settings[place]], data)
        for key, tensor in alone.items():
            torch.testing.assert_close(together[key][place], tensor[0], rtol=1e-9, atol=1e-11)
    assert not torch.equal(together["classifier.fc1.weight"][0], together["classifier.fc1.weight"][1])


def test_a_diverging_network_does_not_disturb_the_others():
    data, settings = _data(torch.float64), _settings("sgd")
    settings[1] = replace(settings[1], lr=1e300)
    together = _trained(RUNS, settings, data)
    assert not all(tensor[1].isfinite().all() for tensor in together.values())
    for place in (0, 2):
        alone = _trained([RUNS[place]], [settings[place]], data)
        for key, tensor in alone.items():
            torch.testing.assert_close(together[key][place], tensor[0], rtol=1e-9, atol=1e-11)


def test_training_learns():
    plan = replace(PLAN, epochs=15, crop_padding=0, snapshots=("1", "100"))
    data = _data(torch.float32, train=1000)
    settings = [Hyperparameters("adam", 0.5, 1e-8, 1.0, 0.0, 0.01)] * 4
    snapshots = train_population(plan, [0, 1, 2, 3], settings, data).snapshots
    assert list(snapshots) == ["1", "100"]
    assert (snapshots["1"].correct < 35).all()
    # Without residual connections some networks never leave chance.
    assert (snapshots["100"].correct > 50).sum() >= 2


def test_accuracy_is_that_of_the_stored_weights():
    data = _data(torch.float32)
    snapshot = train_population(replace(PLAN, half=True), RUNS, _settings("adam"), data).snapshots["75"]
    assert {tensor.dtype for tensor in snapshot.state.values()} == {torch.float16}
    assert torch.equal(snapshot.correct, count_correct(snapshot.state, SPEC, data))


def test_snapshots_fall_on_the_epochs_of_their_names():
    plan = replace(PLAN, epochs=20, snapshots=("1", "50", "75", "100"))
    assert plan.snapshot_epochs == {"1": 1, "50": 10, "75": 15, "100": 20}
    assert replace(plan, snapshots=("75",)).last_epoch == 15
    assert replace(plan, epochs=1).snapshot_epochs == {"1": 1, "50": 1, "75": 1, "100": 1}


def test_the_learning_rate_rises_and_then_falls():
    factors = [lr_factor(step, 100) for step in range(100)]
    assert factors[9] == 1.0 == max(factors)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.01
    assert lr_factor(0, 1) == 1.0


def test_dropout_drops_each_networks_share_and_keeps_the_mean():
    probabilities = torch.tensor([0.0, 0.2, 0.05])
    dropout = PopulationDropout(probabilities, run_streams(0, [0, 1, 2], "dropout"))
    dropped = dropout(torch.ones(3, 201, 500, dtype=torch.float64)).flatten(1)
    assert torch.equal(dropped[0], torch.ones_like(dropped[0]))
    torch.testing.assert_close((dropped == 0).double().mean(1), probabilities.double(), atol=5e-3, rtol=0)
    torch.testing.assert_close(dropped.mean(1), torch.ones(3, dtype=torch.float64), atol=5e-3, rtol=0)


def test_an_epoch_shows_each_image_of_the_subset_once():
    pixels = torch.arange(40.0).view(40, 1, 1, 1).expand(40, 1, 2, 2)
    batches = PopulationBatches(LabelledSamples(pixels, torch.arange(40)), 0.75, 10, 0, 0, [4, 9])
    assert batches.steps == 3
    epochs = [list(batches.epoch()) for _ in range(2)]
    seen = torch.stack([torch.cat([labels for _, labels in epoch], 1) for epoch in epochs])  # [2, 2, 30]
    assert all(len(row.unique()) == 30 for row in seen.flatten(0, 1))
    assert torch.equal(seen[0].sort().values, seen[1].sort().values)
    assert not torch.equal(seen[0], seen[1])
    images, labels = epochs[0][0]
    assert torch.equal(images, labels[..., None, None, None].float().expand(2, 10, 1, 2, 2))


def test_crops_are_shifted_images():
    pixels = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    batches = PopulationBatches(LabelledSamples(pixels, torch.zeros(1, dtype=torch.int64)), 1.0, 1, 1, 0, [0])
    padded = torch.nn.functional.pad(pixels[0, 0], (1, 1, 1, 1), value=-1.0)
    possible = [padded[row : row + 4, column : column + 4] for row in range(3) for column in range(3)]
    crops = [images[0, 0, 0] for _ in range(30) for images, _ in batches.epoch()]
    assert all(any(torch.equal(crop, one) for one in possible) for crop in crops)
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) > 4


def test_initial_weights_are_cut_off_normals():
    state = initial_state(SPEC, 0.3, stream(0, "run", 0, "weights"))
    weights = torch.cat([t.flatten() for key, t in state.items() if key.endswith(".weight")])
    assert weights.abs().max() <= 0.6
    assert 0.22 < weights.std() < 0.3
    assert all(not tensor.any() for key, tensor in state.items() if key.endswith(".bias"))


def test_a_diverged_network_is_recorded_and_its_later_snapshots_are_not_taken():
    data, settings = _data(torch.float32), _settings("sgd")
    settings[1] = replace(settings[1], lr=1e30)
    plan = replace(PLAN, snapshots=("1", "100", "best"))
    trained = train_population(plan, RUNS, settings, data)
    assert trained.diverged[1] > 0
    assert trained.diverged[0] == trained.diverged[2] == 0
    assert all(snapshot.correct[1] == -1 for snapshot in trained.snapshots.values())
    assert all((snapshot.correct[[0, 2]] >= 0).all() for snapshot in trained.snapshots.values())


def test_the_best_snapshot_is_each_networks_first_best_epoch():
    data, settings = _data(torch.float32, 300), _settings("adam")
    epochs = []
    population = Population(PLAN, RUNS, settings, data)
    for _ in range(PLAN.epochs):
        population.train_epoch()
        epochs.append(population.snapshot())
    correct = torch.stack([epoch.correct for epoch in epochs])
    trained = train_population(replace(PLAN, snapshots=("best", "100")), RUNS, settings, data)
    best = trained.snapshots["best"]
    assert torch.equal(best.correct, correct.max(0).values)
    assert torch.equal(trained.snapshots["100"].correct, correct[-1])
    for place, epoch in enumerate(correct.argmax(0).tolist()):
        for key, tensor in best.state.items():
            assert torch.equal(tensor[place], epochs[epoch].state[key][place])
