"""Networks trained together are what they are alone, and a population learns."""

import math
from dataclasses import replace

import pytest
import torch

from nfn_transformer.generation.batches import PopulationBatches
from nfn_transformer.generation.dropout import PopulationDropout
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, ZooRun
from nfn_transformer.generation.images import ImageData, digits
from nfn_transformer.generation.initialization import initial_state
from nfn_transformer.generation.optimizers import RULES
from nfn_transformer.generation.population import Population, train_population
from nfn_transformer.generation.recipe import LEARNING_RATES
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.generation.snapshots import count_correct
from nfn_transformer.generation.training_plan import TrainingPlan, lr_factor
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

SPEC = TransformerSpec((BlockSpec(2, 8, 4, 4, 12),) * 2, FeedForwardSpec((8, 8, 10)), EmbeddingSpec(1, 8, (4, 4), 4))
PLAN = TrainingPlan(SPEC, seed=5, batch_size=16, crop_padding=1, snapshots=("75",), half=False)
NUMBERS = [3, 8, 21]


def _data(dtype: torch.dtype, train: int = 80) -> ImageData:
    def cast(part: LabelledSamples) -> LabelledSamples:
        return LabelledSamples(part.inputs.to(dtype), part.labels)

    data = digits().limited(train, 100)
    return replace(data, train=cast(data.train), test=cast(data.test))


def _runs(settings: list[Hyperparameters], epochs: int = 4) -> list[ZooRun]:
    # A plan holds the sizes that count; those of a run say only who may train together.
    return [
        ZooRun(number, one, Architecture(8, 2, 2, 12), epochs) for number, one in zip(NUMBERS, settings, strict=False)
    ]


def _settings(optimizer: str) -> list[Hyperparameters]:
    lr = LEARNING_RATES[optimizer]
    return [
        Hyperparameters(optimizer, 0.3, 1e-4, 0.8, 0.1, lr[0]),
        Hyperparameters(optimizer, 0.2, 1e-6, 0.8, 0.0, lr[-1]),
        Hyperparameters(optimizer, 0.5, 1e-2, 0.8, 0.2, lr[2]),
    ]


def _trained(runs: list[ZooRun], data: ImageData, steps: int = 8) -> dict[str, torch.Tensor]:
    population = Population(PLAN, runs, data)
    for _ in range(steps):
        population.step()
    return {key: tensor.detach() for key, tensor in population.state().items()}


def _assert_equal(together: dict[str, torch.Tensor], place: int, alone: dict[str, torch.Tensor]) -> None:
    for key, tensor in alone.items():
        torch.testing.assert_close(together[key][place], tensor[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", RULES)
def test_a_network_does_not_depend_on_its_company(optimizer):
    data, runs = _data(torch.float64), _runs(_settings(optimizer))
    together = _trained(runs, data)
    for place, run in enumerate(runs):
        _assert_equal(together, place, _trained([run], data))
    assert not torch.equal(together["classifier.fc1.weight"][0], together["classifier.fc1.weight"][1])


def test_nor_on_company_with_other_optimizers_fractions_and_lengths():
    data = _data(torch.float64)
    mixed = [
        ZooRun(4, Hyperparameters("adam", 0.3, 1e-4, 0.5, 0.1, 0.01), Architecture(8, 2, 2, 12), 3),
        ZooRun(6, Hyperparameters("adam", 0.3, 1e-4, 1.0, 0.2, 0.003), Architecture(8, 2, 2, 12), 5),
        ZooRun(7, Hyperparameters("rmsprop", 0.2, 1e-6, 0.8, 0.0, 0.003), Architecture(8, 2, 2, 12), 1),
        ZooRun(9, Hyperparameters("sgd_momentum", 0.4, 1e-6, 0.8, 0.1, 0.02), Architecture(8, 2, 2, 12), 4),
    ]
    plan = replace(PLAN, snapshots=("1", "50", "100", "best"))
    ended: list[int] = []
    together = train_population(plan, mixed, data, lambda runs: ended.extend(run.number for run in runs))
    assert {run.number: ended.count(run.number) for run in mixed} == {4: 3, 6: 5, 7: 1, 9: 4}
    for place, run in enumerate(mixed):
        alone = train_population(plan, [run], data)
        for name, snapshot in alone.snapshots.items():
            _assert_equal(together.snapshots[name].state, place, snapshot.state)
            assert together.snapshots[name].correct[place] == snapshot.correct[0] >= 0


def test_a_diverging_network_does_not_disturb_the_others():
    data, settings = _data(torch.float64), _settings("sgd")
    settings[1] = replace(settings[1], lr=1e300)
    runs = _runs(settings)
    together = _trained(runs, data)
    assert not all(tensor[1].isfinite().all() for tensor in together.values())
    for place in (0, 2):
        _assert_equal(together, place, _trained([runs[place]], data))


def test_training_learns():
    plan = replace(PLAN, crop_padding=0, snapshots=("1", "100"))
    data = _data(torch.float32, train=1000)
    settings = Hyperparameters("adam", 0.5, 1e-8, 1.0, 0.0, 0.01)
    runs = [ZooRun(number, settings, Architecture(8, 2, 2, 12), 15) for number in range(4)]
    snapshots = train_population(plan, runs, data).snapshots
    assert list(snapshots) == ["1", "100"]
    assert (snapshots["1"].correct < 35).all()
    # Without residual connections some networks never leave chance.
    assert (snapshots["100"].correct > 50).sum() >= 2


def test_accuracy_is_that_of_the_stored_weights():
    data = _data(torch.float32)
    snapshot = train_population(replace(PLAN, half=True), _runs(_settings("adam")), data).snapshots["75"]
    assert {tensor.dtype for tensor in snapshot.state.values()} == {torch.float16}
    assert torch.equal(snapshot.correct, count_correct(snapshot.state, SPEC, data))


def test_snapshots_fall_on_the_epochs_of_their_names():
    plan = replace(PLAN, snapshots=("1", "50", "75", "100"))
    assert plan.snapshot_epochs(20) == {"1": 1, "50": 10, "75": 15, "100": 20}
    assert replace(plan, snapshots=("75",)).last_epoch(20) == 15
    assert plan.snapshot_epochs(1) == {"1": 1, "50": 1, "75": 1, "100": 1}
    in_epochs = replace(plan, snapshots=("1", "12", "50"), snapshot_unit="epochs")
    assert in_epochs.snapshot_epochs(20) == {"1": 1, "12": 12}
    assert in_epochs.last_epoch(20) == 12
    assert in_epochs.due(12, 20) == ("12",)
    assert replace(in_epochs, snapshots=("12", "best")).due(3, 20) == ("best",)


def test_a_training_too_short_for_a_snapshot_has_none():
    plan = replace(PLAN, snapshots=("1", "3"), snapshot_unit="epochs")
    settings = _settings("adam")
    runs = [*_runs(settings[:2], epochs=2), *_runs(settings, epochs=5)[2:]]
    snapshots = train_population(plan, runs, _data(torch.float32)).snapshots
    assert (snapshots["1"].correct >= 0).all()
    assert snapshots["3"].correct[:2].tolist() == [-1, -1]
    assert snapshots["3"].correct[2] >= 0


def _factors(steps: int) -> list[float]:
    return [lr_factor(step, torch.tensor([steps])).item() for step in range(steps)]


def test_the_learning_rate_rises_and_then_falls():
    factors = _factors(100)
    assert factors[9] == 1.0 == max(factors)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.01
    assert factors[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert _factors(1) == [1.0]
    together = lr_factor(3, torch.tensor([8, 20, 100]))
    assert together.tolist() == [_factors(8)[3], _factors(20)[3], _factors(100)[3]]


def test_dropout_drops_each_networks_share_and_keeps_the_mean():
    dropout = PopulationDropout([0.0, 0.2, 0.05], 0, [0, 1, 2], torch.device("cpu"))
    dropped = dropout(torch.ones(3, 201, 500, dtype=torch.float64)).flatten(1)
    assert torch.equal(dropped[0], torch.ones_like(dropped[0]))
    shares = torch.tensor([0.0, 0.2, 0.05], dtype=torch.float64)
    torch.testing.assert_close((dropped == 0).double().mean(1), shares, atol=5e-3, rtol=0)
    torch.testing.assert_close(dropped.mean(1), torch.ones(3, dtype=torch.float64), atol=5e-3, rtol=0)


def test_dropouts_masks_know_nothing_of_each_other():
    dropout = PopulationDropout([0.5] * 8, 0, range(8), torch.device("cpu"))
    masks = torch.cat([dropout(torch.ones(8, 16, 32, 32)).flatten(1) - 1 for _ in range(5)])  # [40, 16384], +-1
    correlations = masks @ masks.T / masks.shape[1]
    # Of independent masks their deviation is 1 / 128; 780 pairs stay within five of these.
    assert (correlations - torch.eye(40)).abs().max() < 5 / 128
    shifted = torch.stack([(masks * masks.roll(shift, 1)).mean(1) for shift in (1, 2, 3, 16, 32, 1024)])
    assert shifted.abs().max() < 5 / 128


def _epoch(batches: PopulationBatches, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    steps = int(batches.steps[0])
    return [batches.batch(step) for step in range(number * steps, (number + 1) * steps)]


def test_an_epoch_shows_each_image_of_the_subset_once():
    pixels = torch.arange(40.0).view(40, 1, 1, 1).expand(40, 1, 2, 2)
    batches = PopulationBatches(LabelledSamples(pixels, torch.arange(40)), [0.75, 0.75], 10, 0, 0, [4, 9])
    assert batches.steps.tolist() == [3, 3]
    epochs = [_epoch(batches, number) for number in range(2)]
    seen = torch.stack([torch.cat([labels for _, labels in epoch], 1) for epoch in epochs])  # [2, 2, 30]
    assert all(len(row.unique()) == 30 for row in seen.flatten(0, 1))
    assert torch.equal(seen[0].sort().values, seen[1].sort().values)
    assert not torch.equal(seen[0], seen[1])
    images, labels = epochs[0][0]
    assert torch.equal(images, labels[..., None, None, None].float().expand(2, 10, 1, 2, 2))


def test_runs_of_several_fractions_have_epochs_of_their_own():
    pixels = torch.zeros(40, 1, 2, 2)
    batches = PopulationBatches(LabelledSamples(pixels, torch.arange(40)), [0.5, 1.0, 0.8], 10, 0, 0, [4, 9, 2])
    assert batches.steps.tolist() == [2, 4, 3]
    seen = torch.cat([batches.batch(step)[1] for step in range(12)], 1)  # [3, 120]
    for run, steps in enumerate(batches.steps.tolist()):
        epochs = seen[run].view(-1, 10 * steps)
        subset = epochs[0].sort().values
        assert len(subset.unique()) == 10 * steps
        if steps * 10 == (20, 40, 32)[run]:  # 32 images fill no whole number of batches
            assert all(torch.equal(epoch.sort().values, subset) for epoch in epochs)


def test_crops_are_shifted_images():
    pixels = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    batches = PopulationBatches(LabelledSamples(pixels, torch.zeros(1, dtype=torch.int64)), [1.0], 1, 1, 0, [0])
    padded = torch.nn.functional.pad(pixels[0, 0], (1, 1, 1, 1), value=-1.0)
    possible = [padded[row : row + 4, column : column + 4] for row in range(3) for column in range(3)]
    crops = [batches.batch(step)[0][0, 0, 0] for step in range(30)]
    assert all(any(torch.equal(crop, one) for one in possible) for crop in crops)
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) > 4


def test_initial_weights_are_cut_off_normals():
    state = initial_state(SPEC, 0.3, make_generator(0, "run", 0, "weights"))
    weights = torch.cat([t.flatten() for key, t in state.items() if key.endswith(".weight")])
    assert weights.abs().max() <= 0.6
    assert 0.22 < weights.std() < 0.3
    assert all(not tensor.any() for key, tensor in state.items() if key.endswith(".bias"))


def test_a_diverged_network_is_recorded_and_its_later_snapshots_are_not_taken():
    data, settings = _data(torch.float32), _settings("sgd")
    settings[1] = replace(settings[1], lr=1e30)
    plan = replace(PLAN, snapshots=("1", "100", "best"))
    trained = train_population(plan, _runs(settings), data)
    assert trained.diverged[1] > 0
    assert trained.diverged[0] == trained.diverged[2] == 0
    assert all(snapshot.correct[1] == -1 for snapshot in trained.snapshots.values())
    assert all((snapshot.correct[[0, 2]] >= 0).all() for snapshot in trained.snapshots.values())


def test_what_half_precision_cannot_hold_is_not_taken_and_trains_on():
    settings = [Hyperparameters("sgd", 0.3, 0.0, 0.8, 0.0, 0.1), Hyperparameters("sgd", 0.3, 0.0, 0.8, 0.0, 3000.0)]
    runs, plan = _runs(settings), replace(PLAN, snapshots=("1", "100"))
    single = train_population(plan, runs, _data(torch.float32))
    half = train_population(replace(plan, half=True), runs, _data(torch.float32))
    assert (single.diverged == 0).all()
    assert torch.equal(half.diverged, single.diverged)
    largest = {name: max(t[1].abs().max() for t in one.state.values()) for name, one in single.snapshots.items()}
    assert largest["100"] > torch.finfo(torch.float16).max
    assert half.snapshots["100"].correct[1] == -1
    assert half.snapshots["100"].correct[0] >= 0
    assert single.snapshots["100"].correct[1] >= 0


def test_the_best_snapshot_is_each_networks_first_best_epoch():
    data, settings = _data(torch.float32, 300), _settings("adam")
    runs = _runs(settings)
    every = replace(PLAN, snapshots=("1", "2", "3", "4"), snapshot_unit="epochs")
    epochs = list(train_population(every, runs, data).snapshots.values())
    correct = torch.stack([epoch.correct for epoch in epochs])
    trained = train_population(replace(PLAN, snapshots=("best", "100")), runs, data)
    best = trained.snapshots["best"]
    assert torch.equal(best.correct, correct.max(0).values)
    assert torch.equal(trained.snapshots["100"].correct, correct[-1])
    for place, epoch in enumerate(correct.argmax(0).tolist()):
        for key, tensor in best.state.items():
            assert torch.equal(tensor[place], epochs[epoch].state[key][place])
