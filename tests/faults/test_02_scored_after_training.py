"""Fault 2: networks that a predictor was trained on are scored, and nothing says so."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch

import nfn_transformer as nfn
from nfn_transformer import predict
from nfn_transformer.errors import RunError
from nfn_transformer.training.report import SEEN


@pytest.fixture(scope="module")
def run(small_zoo, small, tmp_path_factory):
    path = tmp_path_factory.mktemp("seen") / "run"
    nfn.fit(small, "statnn", seed=1, epochs=1, cls_mode="statnn", progress=False, out_dir=path)
    return path


def table(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metadata/digits.csv").read_text().splitlines()))


def write_table(folder, rows) -> None:
    with open(folder / "metadata/digits.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def score(run, folder, tmp_path, capsys, *flags) -> tuple[str, list[dict[str, str]]]:
    out = tmp_path / "scores.csv"
    arguments = ["--run", run, "--dataset", "digits", "--data_path", folder, "--out", out, *flags]
    assert predict.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out, list(csv.DictReader(out.read_text().splitlines()))


def test_02_a_copy_of_the_zoo_without_one_file(run, small_zoo, tmp_path, capsys):
    copy, split = tmp_path / "copy", json.loads((run / "split.json").read_text())
    shutil.copytree(small_zoo, copy)
    write_table(copy, [row for row in table(copy) if not row["ckpt_file"].endswith(split["train"][0])])
    # The files' names and precision are others as well: weights tell.
    for row in (rows := table(copy)):
        name = row["ckpt_file"].rsplit("/", 1)[-1]
        state = torch.load(copy / "digits" / name)
        torch.save({key: value.half() for key, value in state.items()}, copy / "digits" / f"x{name}")
        (copy / "digits" / name).unlink()
        row["ckpt_file"] = f"digits/x{name}"
    write_table(copy, rows)
    shown, scored = score(run, copy, tmp_path, capsys)
    assert f"but {41 + len(split['validation'])}: {len(split['test'])} networks" in shown
    assert {row["file"][1:] for row in scored} == set(split["test"])
    shown, scored = score(run, copy, tmp_path, capsys, "--split", "all")
    assert "warning: the predictor was trained on 41 and selected by 9 of these 59 networks" in shown
    assert {row["file"][1:]: row["side"] for row in scored if row["side"]} == {
        name: side for side in ("train", "validation") for name in split[side] if name != split["train"][0]
    }


def test_02_the_zoo_at_another_epoch(run, small_zoo, tmp_path, capsys):
    other, split = tmp_path / "other", json.loads((run / "split.json").read_text())
    shutil.copytree(small_zoo, other)
    rows = table(other)
    for row in rows:
        name = row["ckpt_file"].rsplit("/", 1)[-1]
        state = torch.load(other / "digits" / name)
        new = name.replace("_75_", "_50_")
        torch.save({key: value * 0.9 for key, value in state.items()}, other / "digits" / new)
        row.update(ckpt_file=f"digits/{new}", ckpt_epoch="50")
    write_table(other, table(other) + rows)
    shown, scored = score(run, other, tmp_path, capsys, "--ckpt_epoch", "50")
    assert "51 networks are left out" in shown
    assert {row["file"].split("_")[0] for row in scored} == {name.split("_")[0] for name in split["test"]}
    # Networks of other weights at the run's own epoch bear the names by chance.
    write_table(other, [{**row, "ckpt_epoch": "75"} for row in rows])
    for row in rows:
        (other / row["ckpt_file"]).rename(other / row["ckpt_file"].replace("_50_", "_75_"))
    write_table(
        other, [{**row, "ckpt_file": row["ckpt_file"].replace("_50_", "_75_"), "ckpt_epoch": "75"} for row in rows]
    )
    shown, scored = score(run, other, tmp_path, capsys)
    assert len(scored) == 60


def test_02_a_record_of_names_alone_still_tells(run, small_zoo, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(run, old)
    record = json.loads((old / "split.json").read_text())
    del record["networks"]
    (old / "split.json").write_text(json.dumps(record))
    files = sorted((small_zoo / "digits").glob("*.pt"))
    kept = [file for file in files if file.name in record["train"]][:3] + [
        file for file in files if file.name in record["test"]
    ][:1]
    assert predict.main(["--run", str(old), *map(str, kept), "--out", str(tmp_path / "out.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("(on the run's train side)") for line in lines] == [True, True, True, False]
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "file,predicted,side"


@pytest.mark.parametrize("networks", [3, {"train": [3]}, {"train": [["run"]]}, {"train": [[[], [], []]]}])
def test_02_a_damaged_record_is_an_error(run, tmp_path, networks):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = json.loads((copy / "split.json").read_text())
    (copy / "split.json").write_text(json.dumps({**record, "networks": networks}))
    with pytest.raises(RunError, match=r"split\.json: is not the split of a run"):
        nfn.load_predictor(copy).seen_networks()


def test_02_a_zoo_of_which_nothing_is_unseen_is_refused(run, small, small_zoo):
    predictor = nfn.load_predictor(run)
    train = json.loads((run / "split.json").read_text())["train"]
    with pytest.raises(RunError, match="trained on, or selected by, all of these 42 networks; --split all"):
        predictor.unseen(small, torch.tensor([small.names.index(name) for name in train]))


def test_02_equal_weights_on_two_sides_are_told_in_the_results(small, tmp_path, capsys):
    rows = small.rows.clone()
    rows[:] = rows[:1] + torch.arange(60)[:, None] // 30
    nfn.fit(replace(small, rows=rows), "statnn", seed=1, epochs=1, cls_mode="statnn", out_dir=tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results[SEEN] == 9
    assert (tmp_path / "run/test_predictions.csv").read_text().startswith("file,predicted,accuracy,side\n")
