"""The command: the release's layout, going on after an interruption, and what bad values get."""

import csv
import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from array_zoos import read_as_printed

from nfn_transformer import make_zoo
from nfn_transformer.cli.command_line import EXIT_INTERRUPTED, run_command
from nfn_transformer.generation import zoo_maker
from nfn_transformer.generation.histogram import histogram_path
from nfn_transformer.generation.images import digits
from nfn_transformer.generation.snapshots import count_correct
from nfn_transformer.weights.state_dicts import spec_from_shapes

COLUMNS = [
    *("optimizer", "w_init_std", "l2_regularize", "train_fraction", "dropout", "lr", "seed", "dataset", "embed_dim"),
    *("n_attention_heads", "n_layers", "ckpt_epoch", "ckpt_file", "test_top1_accuracy"),
]
TINY = [
    *("--embed_dim", "6", "--hidden", "5", "--patch", "4", "--epochs", "2"),
    *("--train_images", "48", "--test_images", "60", "--population", "3"),
]


def _make(out: Path, *flags: str) -> int:
    return make_zoo.main(["--out", str(out), *TINY, *flags])


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_has_the_layout_of_the_release(tmp_path, capsys):
    out = tmp_path / "small"
    assert _make(out, "--runs", "5", "--dataset", "shapes", "--snapshots", "1,75") == 0
    reader = csv.DictReader(io.StringIO((out / "metadata/shapes.csv").read_text()))
    rows = list(reader)
    assert reader.fieldnames == COLUMNS
    assert [row["ckpt_epoch"] for row in rows] == ["1", "75"] * 5
    assert sorted(f"shapes/{path.name}" for path in (out / "shapes").iterdir()) == sorted(r["ckpt_file"] for r in rows)
    for row in rows:
        accuracy = float(row["test_top1_accuracy"])
        assert row["ckpt_file"].endswith(f"_{row['ckpt_epoch']}_{round(accuracy * 10000)}.pt")
        assert (row["dataset"], row["embed_dim"], row["n_attention_heads"], row["n_layers"]) == (
            "shapes",
            "6",
            "2",
            "2",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "small_accuracies.png"]
    printed = capsys.readouterr().out
    assert "10 checkpoints of 5 runs, accuracy" in printed
    assert len(read_as_printed(printed)) == 5


def test_checkpoints_are_small_half_precision_state_dicts_with_true_labels(tmp_path):
    out = tmp_path / "small"
    _make(out, "--runs", "4", "--half", "True")
    for row in _rows((out / "metadata/digits.csv").read_text()):
        path = out / row["ckpt_file"]
        state = torch.load(path, weights_only=True)
        numbers = sum(tensor.numel() for tensor in state.values())
        assert path.stat().st_size < 2 * numbers + 16_000
        assert {tensor.dtype for tensor in state.values()} == {torch.float16}
        assert all(tensor.untyped_storage().nbytes() == 2 * tensor.numel() for tensor in state.values())
        spec = spec_from_shapes({key: tuple(tensor.shape) for key, tensor in state.items()}, heads=2)
        stacked = {key: tensor[None] for key, tensor in state.items()}
        correct = count_correct(stacked, spec, digits().limited(None, 60))
        assert int(correct) / 60 == pytest.approx(float(row["test_top1_accuracy"]), abs=1e-6)


def test_a_killed_command_goes_on_to_the_same_zoo(tmp_path):
    flags = ["--runs", "20", "--population", "1", "--epochs", "8"]
    whole, broken = tmp_path / "whole/zoo.zip", tmp_path / "broken/zoo.zip"
    whole.parent.mkdir()
    broken.parent.mkdir()
    command = [sys.executable, make_zoo.__file__, "--out", str(broken), *TINY, *flags]
    parts = broken.with_name("zoo.zip.parts")
    # The same number of threads here and there, since it may change the order of sums.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while len(list(parts.glob("population_*.pt"))) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not broken.exists()
    (parts / ".population_00009.pt.abc.part").write_bytes(b"what a kill in the middle of a write leaves")
    kept = list(parts.glob("population_*.pt"))
    assert 3 <= len(kept) < 20
    trained = _count_trainings(lambda: _make(broken, *flags))
    assert trained == 20 - len(kept)
    _make(whole, *flags)
    assert broken.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in broken.parent.iterdir()) == ["zoo.zip", "zoo_accuracies.png"]
    with zipfile.ZipFile(whole) as archive:
        assert len(_rows(archive.read("zoo/metadata/digits.csv").decode())) == 20


def _count_trainings(action) -> int:
    calls = []
    original = zoo_maker.train_population
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo_maker, "train_population", lambda *given: calls.append(0) or original(*given))
        action()
    return len(calls)


def _interrupt_after(patch: pytest.MonkeyPatch, populations: int) -> None:
    original = zoo_maker.train_population
    left = iter(range(populations))

    def interrupted(*given):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*given)

    patch.setattr(zoo_maker, "train_population", interrupted)


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys):
    out = tmp_path / "zoo.zip"
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_after(patch, 1)
        assert _make(out, "--runs", "6") == EXIT_INTERRUPTED
    assert "the same command goes on from there" in capsys.readouterr().err
    assert not out.exists()
    assert _make(out, "--runs", "6") == 0
    assert out.exists()


def test_parts_of_another_configuration_are_refused(tmp_path, capsys):
    out = tmp_path / "zoo.zip"
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_after(patch, 1)
        _make(out, "--runs", "6")
    flags = ["--out", str(out), *TINY, "--runs", "6", "--seed", "2"]
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, flags)
    message = capsys.readouterr().err
    assert (
        "zoo.zip.parts holds an unfinished zoo of another configuration (runs have changed, seed was 1, is now 2)"
        in message
    )


def test_a_damaged_part_is_named(tmp_path, capsys):
    out = tmp_path / "zoo.zip"
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_after(patch, 1)
        _make(out, "--runs", "6")
    part = next((tmp_path / "zoo.zip.parts").glob("population_*.pt"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(out), *TINY, "--runs", "6"])
    assert f"{part}: damaged" in capsys.readouterr().err
    assert not out.exists()


def test_diverged_networks_are_left_out_and_listed(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("draw: grid\nlr: {sgd: [0.1, 1e30]}\nw_init_std: 0.3\nl2_regularize: 0\ndropout: 0\n")
    _make(tmp_path / "zoo", "--recipe", str(recipe))
    kept = _rows((tmp_path / "zoo/metadata/digits.csv").read_text())
    assert {row["lr"] for row in kept} == {"0.1"}
    assert len(kept) == 4  # of four train fractions
    listed = _rows((tmp_path / "zoo_diverged.csv").read_text())
    assert {row["lr"] for row in listed} == {"1e+30"}
    assert len(listed) == 4
    assert all(int(row["diverged_in_epoch"]) >= 1 for row in listed)
    assert "4 runs have diverged, and are left out from then on" in capsys.readouterr().out


def test_snapshots_after_given_epochs(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("draw: grid\nlr: {adam: [0.01]}\nw_init_std: [0.3]\nl2_regularize: [0]\n")
    with recipe.open("a") as file:
        file.write("train_fraction: [0.7, 1.0]\ndropout: [0.1]\nepochs: [2, 3]\n")
    flags = ("--recipe", str(recipe), "--snapshots", "1,3,best", "--snapshot_unit", "epochs", "--batch_size", "16")
    assert _make(tmp_path / "zoo", *flags) == 0
    rows = _rows((tmp_path / "zoo/metadata/digits.csv").read_text())
    assert [(row["epochs"], row["ckpt_epoch"]) for row in rows] == [
        *[("2", "1"), ("2", "best"), ("3", "1"), ("3", "3"), ("3", "best")] * 2
    ]
    best = {row["ckpt_file"]: row for row in rows if row["ckpt_epoch"] == "best"}
    assert all((tmp_path / "zoo" / name).is_file() for name in best)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runs", "0"], "--runs: must be at least 1 and at most"),
        (["--half", "maybe"], "expected True or False, got 'maybe'"),
        (["--patch", "3"], "--patch 3: does not divide the images' 8 x 8 pixels"),
        (["--n_attention_heads", "4"], "--n_attention_heads 4: none divides embed_dim 6"),
        (["--train_images", "1001"], "--train_images 1001: expected at most 1000"),
        (
            ["--snapshots", "75,bad"],
            "--snapshots 75,bad: expected whole numbers from 1 to 100 (percent) or best, got 'bad'",
        ),
        (["--snapshots", "75,101"], "expected whole numbers from 1 to 100 (percent) or best, got '101'"),
        (
            ["--snapshots", "0,1", "--snapshot_unit", "epochs"],
            "expected whole numbers of at least 1 (epochs) or best, got '0'",
        ),
        (["--snapshots", "3,7", "--snapshot_unit", "epochs"], "run 0 has only 2 epochs, so none of them"),
        (["--batch_size", "49"], "--batch_size 49: run 0 has only"),
        (["--dataset", "a/b"], "--dataset 'a/b': expected the name of a folder"),
        (["--images", "/nowhere"], "--images /nowhere: no such folder"),
        (["--launcher", "slurm", "--population", "auto"], "--launcher slurm requires --population"),
        (["--device", "tpu9"], "--device tpu9: expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_bad_values_are_named(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "zoo"), *TINY, *flags])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "zoo.zip").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "zoo.zip"), *TINY])
    assert "zoo.zip: already exists" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "no/zoo.zip"), *TINY])
    assert "no folder" in capsys.readouterr().err
    assert (tmp_path / "zoo.zip").read_text() == "mine"


def test_the_histogram_of_a_folder_and_of_a_zip_of_one_name_are_two_files(tmp_path):
    folder, archive = tmp_path / "zoo", tmp_path / "zoo.zip"
    assert histogram_path(archive) == histogram_path(folder) == tmp_path / "zoo_accuracies.png"
    folder.mkdir()
    histogram_path(folder).write_bytes(b"")
    assert histogram_path(folder).name == "zoo_accuracies.png"  # the same zoo made anew
    assert histogram_path(archive).name == "zoo_zip_accuracies.png"
    archive.write_bytes(b"")
    assert histogram_path(folder).name == "zoo_folder_accuracies.png"
