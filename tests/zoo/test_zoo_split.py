"""Splits: their sizes, that runs stay whole, that order does not matter, and the cut-off."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import Split, draw_split, split_record, split_runs
from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec, TransformerSpec
from nfn_transformer.zoo.faults import FaultReport
from nfn_transformer.zoo.metadata import ABSENT, HYPERPARAMETERS
from nfn_transformer.zoo.reading import Zoo

SPEC = TransformerSpec((BlockSpec(1, 2, 1, 1, 3),), FeedForwardSpec((2, 3, 2)), None)


def zoo_of(runs: list[str], labels: list[float]) -> Zoo:
    """Return a zoo of networks [n] that nobody evaluates."""
    return Zoo(
        spec=SPEC,
        shapes={},
        rows=torch.zeros(len(runs), 1),
        labels=torch.tensor(labels),
        names=[f"{run}_75_{number}.pt" for number, run in enumerate(runs)],
        runs=runs,
        report=FaultReport(len(runs)),
        hyperparameters=torch.zeros(len(runs), len(HYPERPARAMETERS)),
    )


seeds = st.integers(0, 2**32)
run_lists = st.lists(st.integers(0, 30).map(lambda run: f"run{run}"), min_size=60, max_size=120).filter(
    lambda runs: len(set(runs)) >= 7
)


@given(run_lists, seeds)
def test_a_split_covers_all_checkpoints_and_keeps_runs_whole(runs, seed):
    split = split_runs(runs, seed)
    sides = [split.train.tolist(), split.validation.tolist(), split.test.tolist()]
    assert sorted(index for side in sides for index in side) == list(range(len(runs)))
    assert all(side == sorted(side) for side in sides)
    train, validation, test = ({runs[index] for index in side} for side in sides)
    count = len(set(runs))
    assert train.isdisjoint(validation)
    assert test.isdisjoint(train | validation)
    assert (len(train), len(validation)) == (int(0.7 * count), int(0.15 * count))


def zoo_of_sizes() -> Zoo:
    """Return 60 networks of 30 runs; their depths are 1, 2, 3 by run, every fourth run has Adam."""
    zoo = zoo_of([f"run{number // 2}" for number in range(60)], [0.5] * 60)
    for number in range(60):
        zoo.hyperparameters[number, HYPERPARAMETERS.index("n_layers")] = 1 + number // 2 % 3
        zoo.hyperparameters[number, HYPERPARAMETERS.index("lr")] = 0.001
        zoo.hyperparameters[number, HYPERPARAMETERS.index("epochs")] = ABSENT
        zoo.hyperparameters[number, HYPERPARAMETERS.index("optimizer is adam")] = float(number // 2 % 4 == 0)
    return zoo


@pytest.mark.parametrize("condition", ["n_layers=3", "lr=1e-3,n_layers=3,optimizer=Adam"])
def test_networks_of_a_condition_are_tested_and_no_others(condition):
    zoo = zoo_of_sizes()
    split = draw_split(zoo, DataConfig(test_where=condition), seed=1)
    wanted = [n for n in range(60) if n // 2 % 3 == 2 and ("Adam" not in condition or n // 2 % 4 == 0)]
    assert split.test.tolist() == wanted
    others = 30 - len(wanted) // 2
    assert len(split.validation) == 2 * int(0.15 * others)
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == sorted({*range(60)} - {*wanted})
    assert {zoo.runs[index] for index in split.train}.isdisjoint(zoo.runs[index] for index in split.validation)
    assert draw_split(zoo, DataConfig(test_where=condition), seed=2).train.tolist() != split.train.tolist()


def test_a_run_of_which_a_network_is_tested_is_on_no_other_side():
    zoo = zoo_of_sizes()
    zoo.hyperparameters[1, HYPERPARAMETERS.index("n_layers")] = 9
    split = draw_split(zoo, DataConfig(test_where="n_layers=9"), seed=1)
    assert split.test.tolist() == [1]
    assert 0 not in [*split.train.tolist(), *split.validation.tolist()]
    with pytest.raises(ZooError, match=r"0 of 60 checkpoints have an accuracy of at least 0\.9; too few runs"):
        draw_split(zoo, DataConfig(test_where="n_layers=9", cut_off=0.9), seed=1)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "depth=3",
            r"^--test_where depth=3: expected a column of the zoo's table \(lr, .*, optimizer=adam.*, got 'depth=3'",
        ),
        ("n_layers=4", "--test_where n_layers=4: no network has 'n_layers=4'; n_layers is 1, 2, 3"),
        ("n_layers=x", "--test_where n_layers=x: expected a number, got 'n_layers=x'"),
        ("dropout=0.1", "no network has 'dropout=0.1'; dropout is 0"),
        ("epochs=10", r"a column of the zoo's table \(((?!epochs).)*\), got 'epochs=10'$"),
        ("lr=-1", "no network has 'lr=-1'; lr is 0.001$"),
        ("n_layers=3,l2_regularize=7", "no network has 'l2_regularize=7'"),
        ("n_layers", "--test_where 'n_layers': expected COLUMN=VALUE"),
        ("lr=0.001", "too few runs to split: 0 checkpoints"),
        ("optimizer=sgd", "no network has 'optimizer=sgd'$"),
        ("optimizer=lion", "expected a column of .*, got 'optimizer=lion'"),
    ],
)
def test_a_condition_that_no_split_has_is_an_error(condition, message):
    with pytest.raises(UserError, match=message):
        draw_split(zoo_of_sizes(), DataConfig(test_where=condition), seed=1)


@given(run_lists, seeds, st.randoms(use_true_random=False))
def test_the_order_of_checkpoints_does_not_matter(runs, seed, random):
    shuffled = random.sample(runs, len(runs))
    first, second = split_runs(runs, seed), split_runs(shuffled, seed)
    for side in ("train", "validation", "test"):
        assert {runs[i] for i in getattr(first, side)} == {shuffled[i] for i in getattr(second, side)}


def test_sizes_of_the_sample_zoo_and_of_other_seeds():
    runs = [f"run{index}" for index in range(14)]
    splits = [split_runs(runs, seed) for seed in range(10)]
    assert {(len(split.train), len(split.validation), len(split.test)) for split in splits} == {(9, 2, 3)}
    assert len({tuple(split.test.tolist()) for split in splits}) > 5


def test_the_split_of_a_seed_never_changes():
    split = split_runs([f"run{index:02d}" for index in range(14)], 3)
    assert (split.validation.tolist(), split.test.tolist()) == ([5, 6], [0, 2, 8])


def test_global_random_state_is_neither_used_nor_changed():
    runs = [f"run{index}" for index in range(20)]
    before = torch.random.get_rng_state()
    first = split_runs(runs, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(1)
    assert torch.equal(first.train, split_runs(runs, 1).train)


@pytest.mark.parametrize(("count", "sizes"), [(0, (0, 0, 0)), (1, (0, 0, 1)), (6, (4, 0, 2))])
def test_an_empty_side_is_an_error_that_names_the_counts(count, sizes):
    runs = [f"run{index // 2}" for index in range(2 * count)]
    with pytest.raises(ZooError) as error:
        split_runs(runs, 3)
    train, validation, test = sizes
    assert str(error.value) == (
        f"too few runs to split: {2 * count} checkpoints of {count} runs give {train} runs for training, "
        f"{validation} for validation and {test} for the test; each must have one"
    )


def test_a_split_of_some_is_the_split_of_their_runs_as_indices_into_all():
    runs = [f"run{index // 2}" for index in range(60)]
    kept = torch.tensor([index for index in range(60) if index % 3])
    split, alone = split_runs(runs, 3, kept), split_runs([runs[index] for index in kept.tolist()], 3)
    for side in ("train", "validation", "test"):
        assert torch.equal(getattr(split, side), kept[getattr(alone, side)])


def test_a_split_survives_json():
    zoo = zoo_of([f"run{index:02d}" for index in range(14)], [0.5] * 14)
    names, split = zoo.names, split_runs(zoo.runs, 3)
    record = json.loads(json.dumps(split_record(zoo, split)))
    again = Split.from_names(record, names[::-1])
    for side in ("train", "validation", "test"):
        assert (
            [names[::-1][i] for i in getattr(again, side)] == [names[i] for i in getattr(split, side)] == record[side]
        )


def test_a_recorded_split_that_does_not_fit_is_an_error():
    record = {"train": ["a.pt"], "validation": ["b.pt"], "test": ["c.pt"]}
    with pytest.raises(ZooError, match=r"1 checkpoints of the recorded split are not in the zoo: 'c\.pt'"):
        Split.from_names(record, ["a.pt", "b.pt"])
    with pytest.raises(ZooError, match="no side 'test'; it has train, validation"):
        Split.from_names({"train": [], "validation": []}, [])


@given(st.integers(0, 10000))
def test_a_label_equal_to_the_cut_off_is_kept(number):
    cut_off = number / 10000
    labels = [cut_off, max(0, number - 1) / 10000, min(10000, number + 1) / 10000]
    zoo = zoo_of([f"run{index // 3}" for index in range(21)], labels * 7)
    split = draw_split(zoo, DataConfig("any", "nowhere", cut_off=cut_off), 3)
    kept = torch.cat([split.train, split.validation, split.test]).sort().values
    assert kept.tolist() == [index for index in range(21) if index % 3 != 1 or number == 0]


def test_fewer_training_networks_are_part_of_more_and_leave_the_other_sides():
    split = split_runs([f"run{number:03d}" for number in range(200)], 3)
    few, more = split.with_fewer_to_train(20, 3), split.with_fewer_to_train(90, 3)
    assert (len(few.train), len(more.train)) == (20, 90)
    assert set(few.train.tolist()) < set(more.train.tolist()) < set(split.train.tolist())
    assert few.train.tolist() == sorted(few.train.tolist())
    assert torch.equal(few.validation, split.validation)
    assert torch.equal(few.test, split.test)
    assert not torch.equal(split.with_fewer_to_train(20, 4).train, few.train)
    assert torch.equal(split.with_fewer_to_train(140, 3).train, split.train)
    with pytest.raises(ZooError, match="--train_networks 141: expected at most the 140 of the training side"):
        split.with_fewer_to_train(141, 3)
