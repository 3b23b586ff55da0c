"""Kills between a result and the removal of what led to it, as scripts/checks/kill_anywhere.py found them."""

import os
from pathlib import Path

import pytest

from nfn_transformer import main, make_zoo
from nfn_transformer.generation.work_folder import WorkFolder

ZOO = [
    *("--embed_dim", "6", "--hidden", "5", "--patch", "4", "--epochs", "1", "--runs", "4"),
    *("--train_images", "48", "--test_images", "60", "--device", "cpu"),
]


class Killed(BaseException):
    pass


def die(*_) -> None:
    raise Killed


@pytest.mark.parametrize("last", ["learning_curves.png", "state.pt"])
def test_resuming_after_the_results_makes_what_is_missing_and_removes_the_state(small_zoo, tmp_path, monkeypatch, last):
    run = tmp_path / "run"
    flags = ["--enc_mode", "statnn", "--cls_mode", "statnn", "--epochs", "1", "--dataset", "digits", "--device", "cpu"]
    with monkeypatch.context() as patch:
        replace, unlink = os.replace, Path.unlink
        patch.setattr(os, "replace", lambda a, b: die() if Path(b).name == last else replace(a, b))
        patch.setattr(Path, "unlink", lambda path, **given: die() if path.name == "state.pt" else unlink(path, **given))
        if last == "state.pt":
            patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            main.main([*flags, "--data_path", str(small_zoo), "--out_dir", str(run)])
    results = (run / "results.json").read_bytes()
    assert (run / "state.pt").exists()
    assert (run / "learning_curves.png").exists() == (last == "state.pt")
    assert main.main(["--resume", str(run)]) == 0
    assert not (run / "state.pt").exists()
    assert (run / "learning_curves.png").exists()
    assert (run / "results.json").read_bytes() == results


@pytest.fixture
def zoo_before_the_removal_of_its_parts(tmp_path, monkeypatch) -> Path:
    out = tmp_path / "zoo.zip"
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "remove", die)
        with pytest.raises(Killed):
            make_zoo.main(["--out", str(out), *ZOO])
    assert out.with_name("zoo.zip.parts").exists()
    return out


def test_the_same_command_removes_the_parts_of_a_zoo_that_is_written(zoo_before_the_removal_of_its_parts, capsys):
    out = zoo_before_the_removal_of_its_parts
    before = out.read_bytes()
    assert make_zoo.main(["--out", str(out), *ZOO]) == 0
    assert capsys.readouterr().out.endswith(f"{out}: is finished\n")
    assert out.read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["zoo.zip", "zoo_accuracies.png"]


def test_another_command_does_not(zoo_before_the_removal_of_its_parts):
    out = zoo_before_the_removal_of_its_parts
    with pytest.raises(make_zoo.UserError, match="already exists"):
        make_zoo.main(["--out", str(out), *ZOO, "--seed", "2"])
    assert out.with_name("zoo.zip.parts").exists()
