"""Several processes that make one zoo, each its share."""

import threading

import pytest
import torch

from nfn_transformer import make_zoo
from nfn_transformer.atomic_files import replacing
from nfn_transformer.cli.command_line import run_command
from nfn_transformer.generation import work_folder
from nfn_transformer.generation.population import TrainedPopulation
from nfn_transformer.generation.snapshots import Snapshot
from nfn_transformer.generation.work_folder import WorkFolder
from nfn_transformer.generation.workers import wait_for_others

FLAGS = [
    *("--embed_dim", "6", "--hidden", "5", "--patch", "4", "--epochs", "2", "--runs", "8", "--population", "2"),
    *("--train_images", "48", "--test_images", "60"),
]


def test_two_processes_make_the_zoo_that_one_makes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert make_zoo.main(["--out", str(tmp_path / "one/zoo.zip"), *FLAGS]) == 0
    assert make_zoo.main(["--out", str(tmp_path / "two/zoo.zip"), *FLAGS, "--jobs", "2"]) == 0
    assert (tmp_path / "two/zoo.zip").read_bytes() == (tmp_path / "one/zoo.zip").read_bytes()
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["zoo.zip", "zoo_accuracies.png"]


def test_one_zoo_has_one_owner_and_a_population_one_trainer(tmp_path, capsys):
    out = tmp_path / "zoo.zip"
    mine, other = WorkFolder(out), WorkFolder(out)
    with mine.owned({"a": 1}):
        with pytest.raises(SystemExit, match="2"):
            run_command(make_zoo.main, ["--out", str(out), *FLAGS])
        assert "another process is making this zoo" in capsys.readouterr().err
        with mine.claim(0) as first, other.claim(0) as second, other.claim(1) as third:
            assert (first, second, third) == (True, False, True)
        with other.claim(0) as again:
            assert again


def test_the_next_owner_leaves_a_living_process_its_files(tmp_path):
    out = tmp_path / "zoo.zip"
    snapshots = {"75": Snapshot({"w": torch.ones(1, 2)}, torch.tensor([3]))}
    trained = TrainedPopulation(snapshots, torch.zeros(1, dtype=torch.int64))
    worker = WorkFolder(out)
    with worker.owned({"a": 1}):
        pass  # an owner that was killed, whose worker lives
    left = worker.path / ".population_00001.pt.xyz.part"
    left.touch()
    with worker.claim(0), replacing(worker.path / "population_00000.pt") as draft:
        with WorkFolder(out).owned({"a": 1}):
            assert draft.exists()
            assert not left.exists()
            assert worker.is_claimed(0)
        draft.write_bytes(b"whole")
    worker.save(0, trained)
    assert not worker.is_claimed(0)
    assert worker.unfinished(3) == [1, 2]
    assert torch.equal(worker.load(0).snapshots["75"].correct, torch.tensor([3]))


def test_an_owner_waits_for_those_that_are_at_work(tmp_path):
    work = WorkFolder(tmp_path / "zoo.zip")
    snapshots = {"75": Snapshot({"w": torch.ones(1, 2)}, torch.tensor([3]))}
    with work.owned({"a": 1}):
        with work.claim(0):
            waiting = threading.Thread(target=wait_for_others, args=(WorkFolder(tmp_path / "zoo.zip"), 1))
            waiting.start()
            waiting.join(1.0)
            assert waiting.is_alive()
            work.save(0, TrainedPopulation(snapshots, torch.zeros(1, dtype=torch.int64)))
        waiting.join(30)
        assert not waiting.is_alive()


def test_a_folder_that_is_still_written_to_does_not_spoil_the_zoo(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(work_folder, "_REMOVAL_SECONDS", 0.01)
    work = WorkFolder(tmp_path / "zoo")
    with work.owned({}):
        pass
    monkeypatch.setattr(work_folder.shutil, "rmtree", lambda *given, **flags: None)
    work.remove()
    assert "zoo.parts: cannot be deleted whole, and is no longer needed" in capsys.readouterr().err
