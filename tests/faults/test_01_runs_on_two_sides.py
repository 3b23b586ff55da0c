"""Fault 1: checkpoints of one run on two sides of a split, because their names are not the release's."""

import pytest
from small_zoo import SmallZoo, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.training.data import split_runs
from nfn_transformer.zoo.metadata import Columns
from nfn_transformer.zoo.reading import read_zoo
from nfn_transformer.zoo.runs import runs_of_files

EPOCHS = ("25", "50", "75")


def zoo_of(path, name, folder: str = "", **columns) -> SmallZoo:
    """20 runs of three epochs, whose files are named by `name(run, epoch)`."""
    zoo = SmallZoo(path)
    for run in range(20):
        for epoch in EPOCHS:
            file = zoo.file(name(run, epoch))
            old = zoo.add("x", state_dict(100 * run + int(epoch)), epoch, ckpt_file=f"mnist/{name(run, epoch)}")
            zoo.rows[-1].update({key: str(run) for key in columns})
            file.parent.mkdir(parents=True, exist_ok=True)
            zoo.file(old).rename(file)
    zoo.write_table()
    return zoo


NAMES = {
    "end": lambda run, epoch: f"model{run}_{epoch}.pt",
    "word": lambda run, epoch: f"m{run}-epoch{epoch}.pt",
    "metrics": lambda run, epoch: f"model_{run}_epoch_{epoch}_acc_0.3.pt",
    "release": lambda run, epoch: f"{run}z_{epoch}_{5000 + run}.pt",
    "number last": lambda run, epoch: f"model_{epoch}_{run}.pt",
    "number that may be the epoch": lambda run, epoch: f"exp_{run + 20}_{epoch}.pt",
    "front": lambda run, epoch: f"epoch={epoch}-model={run}.pt",
    "joined": lambda run, epoch: f"m{run}e{epoch}.pt",
    "folder of a run": lambda run, epoch: f"run_{run}/epoch{epoch}.pt",
    "folder and common name": lambda run, epoch: f"run_{run}/checkpoint_{epoch}.pt",
    "folder of an epoch": lambda run, epoch: f"epoch_{epoch}/model{run}.pt",
}


@pytest.mark.parametrize("kind", NAMES)
def test_01_no_run_is_on_two_sides(tmp_path, kind):
    read = read_zoo(zoo_of(tmp_path / "zoo", NAMES[kind]).path, "mnist", "all", progress=False)
    assert len(read) == 60
    assert len(set(read.runs)) == 20
    run_of_name = dict(zip(read.names, read.runs, strict=True))
    for run in range(20):
        files = [NAMES[kind](run, epoch) for epoch in EPOCHS]
        of_run = {run_of_name[file if file in run_of_name else file.rsplit("/", 1)[-1]] for file in files}
        assert len(of_run) == 1
    split = split_runs(read.runs, 3)
    train, validation, test = (
        {read.runs[i] for i in side.tolist()} for side in (split.train, split.validation, split.test)
    )
    assert not train & (validation | test)
    assert not validation & test


def test_01_where_the_run_cannot_be_told_several_epochs_are_refused_and_a_column_tells_it(tmp_path):
    zoo = zoo_of(tmp_path / "zoo", lambda run, epoch: f"{(7919 * run + 104729 * int(epoch)) % 99991}x.pt", model="")
    with pytest.raises(ZooError, match=r"expected file names that tell the run, .* --run_column COLUMN names a column"):
        read_zoo(zoo.path, "mnist", "all", progress=False)
    one = read_zoo(zoo.path, "mnist", "75", progress=False)
    assert len(set(one.runs)) == 20
    assert not one.runs_are_told
    told = read_zoo(zoo.path, "mnist", "all", progress=False, columns=Columns(run="model"))
    assert sorted(set(told.runs)) == sorted(map(str, range(20)))


def test_01_names_of_the_release_keep_their_runs():
    files = {f"01z{i:05d}_75_{i}.pt": (f"01z{i:05d}_75_{i}.pt", "75", 0.5) for i in range(30)}
    files["a_b_best1_12.pt"] = ("a_b_best1_12.pt", "best1", 0.5)
    runs = runs_of_files(files)
    assert runs == {name: name.rsplit("_", 2)[0] for name in files}
