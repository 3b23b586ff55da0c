"""predict.py: loose checkpoints and labelled zoos give what the run itself wrote."""

import csv
import json
import re
import shutil

import pytest
from safetensors.torch import save_file
from small_zoo import SmallZoo, state_dict
from torch import nn

from nfn_transformer import main, predict
from nfn_transformer.errors import RunError, ZooError


@pytest.fixture(scope="module")
def trained(small_zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "trained"
    flags = ["--dataset", "digits", "--data_path", str(small_zoo), "--epochs", "2", "--cls_mode", "hnps"]
    assert main.main([*flags, "--out_dir", str(path)]) == 0
    return path


def table(path):
    with open(path, newline="") as file:
        return {row["file"].rsplit("/", 1)[-1]: float(row["predicted"]) for row in csv.DictReader(file)}


def test_files_folders_and_zips_give_the_same_predictions(trained, small_zoo, tmp_path, capsys):
    shutil.make_archive(str(tmp_path / "zoo"), "zip", small_zoo)
    files = sorted(map(str, small_zoo.glob("digits/*.pt")))
    tables = []
    for paths in (files, [str(small_zoo)], [str(tmp_path / "zoo.zip")]):
        assert predict.main(["--run", str(trained), *paths, "--out", str(tmp_path / "out.csv")]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 60
        tables.append(table(tmp_path / "out.csv"))
    assert tables[0] == tables[1] == tables[2]
    for name, predicted in table(trained / "test_predictions.csv").items():
        assert tables[0][name] == pytest.approx(predicted, abs=1e-4)  # batches of another size, and perhaps a GPU


def test_checkpoints_that_cannot_be_used_are_named_and_the_others_predicted(trained, small_zoo, tmp_path, capsys):
    folder, out = tmp_path / "new", tmp_path / "out.csv"
    folder.mkdir()
    for file in sorted(small_zoo.glob("digits/*.pt"))[:2]:
        shutil.copy(file, folder)
    (folder / "a.pt").write_bytes(b"PK\3\4 half a download")
    save_file(nn.Sequential(nn.Linear(2, 1)).state_dict(), folder / "mlp.safetensors")
    assert predict.main(["--run", str(trained), str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "warning: 2 of 4 checkpoints cannot be used and are left out:\n" in printed.err
    assert f"{folder}/a.pt: " in printed.err
    assert f"{folder}/mlp.safetensors: " in printed.err
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    predicted = {row["file"].rsplit("/", 1)[-1]: row["predicted"] for row in rows}
    assert [name for name, text in predicted.items() if not text] == ["a.pt", "mlp.safetensors"]
    assert sum(bool(text) for text in predicted.values()) == 2
    errors = {row["file"]: row["error"] for row in rows if row["error"]}
    assert list(errors) == [f"{folder}/a.pt", f"{folder}/mlp.safetensors"]
    for name, reason in errors.items():
        assert f"  {name}: {reason}\n" in printed.err
    sound = [str(path) for path in sorted(folder.glob("*.pt")) if path.name != "a.pt"]
    assert predict.main(["--run", str(trained), *sound, "--out", str(out)]) == 0
    assert out.read_text().splitlines()[0] == "file,predicted,side"
    with pytest.raises(ZooError, match=r"^1 checkpoint cannot be used:\n"):
        predict.main(["--run", str(trained), str(folder / "a.pt")])


def test_the_runs_own_test_split_and_another_zoo(trained, small_zoo, tmp_path, capsys):
    results = json.loads((trained / "results.json").read_text())
    assert predict.main(["--run", str(trained), "--dataset", "digits"]) == 0
    printed = capsys.readouterr().out
    assert "the run's own test split: 9 networks" in printed
    assert float(re.search(r"tau (\S+)", printed)[1]) == pytest.approx(results["test"]["tau"], abs=1e-4)
    # Part of the run's own zoo is scored on what the run has not seen of it.
    test_side = (trained / "test_predictions.csv").read_text()
    with open(small_zoo / "metadata/digits.csv", newline="") as file:
        adam = {row["ckpt_file"].rsplit("/", 1)[-1] for row in csv.DictReader(file) if row["optimizer"] == "adam"}
    unseen = [name for name in adam if name in test_side]
    argv = ["--run", str(trained), "--dataset", "digits", "--where", "optimizer=adam"]
    assert unseen
    assert predict.main(argv) == 0
    assert f"the run's own test split, where optimizer=adam: {len(unseen)} networks" in capsys.readouterr().out
    assert predict.main([*argv, "--split", "all"]) == 0
    assert f"all of its checkpoints, where optimizer=adam: {len(adam)} networks" in capsys.readouterr().out
    moved = tmp_path / "moved"
    shutil.copytree(small_zoo, moved)
    arguments = ["--run", str(trained), "--data_path", str(moved)]
    assert predict.main(arguments) == 0
    assert "the run's own test split: 9 networks" in capsys.readouterr().out
    assert predict.main([*arguments, "--split", "all"]) == 0
    assert "all of its checkpoints: 60 networks" in capsys.readouterr().out
    table = (moved / "metadata/digits.csv").read_text().splitlines()
    (moved / "metadata/digits.csv").write_text("\n".join(table[:41]))
    assert predict.main(arguments) == 0
    assert "all of its checkpoints but 32: 8 networks" in capsys.readouterr().out
    with pytest.raises(RunError, match="the zoo is not the one that the run began with"):
        predict.main([*arguments, "--split", "test"])


@pytest.fixture
def other_sizes(tmp_path):
    """A labelled zoo whose networks have other sizes than the bundled ones."""
    zoo = SmallZoo(tmp_path / "others", "digits")
    for run in range(6):
        zoo.add(f"run{run}", state_dict(run), label=str(0.1 + 0.1 * run))
    zoo.write_table()
    return zoo


def test_the_complete_encoder_predicts_for_networks_of_other_sizes(small_zoo, other_sizes, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--dataset", "digits", "--enc_mode", "complete", "--epochs", "2", "--ensemble", "2", "--out_dir", str(run)]
    assert main.main([*flags, "--data_path", str(small_zoo)]) == 0
    capsys.readouterr()
    argv = ["--run", str(run), "--out", str(tmp_path / "labelled.csv")]
    assert predict.main([*argv, "--dataset", "digits", "--data_path", str(other_sizes.path)]) == 0
    assert "all of its checkpoints: 6 networks" in capsys.readouterr().out
    labelled = table(tmp_path / "labelled.csv")
    originals = sorted(small_zoo.glob("digits/*.pt"))[:3]
    mixed = [originals[0], *sorted(other_sizes.path.glob("digits/*.pt")), *originals[1:]]
    assert predict.main(["--run", str(run), "--out", str(tmp_path / "loose.csv"), *map(str, mixed)]) == 0
    loose = table(tmp_path / "loose.csv")
    assert list(loose) == [path.name for path in mixed]
    for name, predicted in labelled.items():
        assert loose[name] == pytest.approx(predicted, abs=1e-5)
    assert len(set(labelled.values())) == 6


def test_other_predictors_refuse_networks_of_other_sizes(trained, other_sizes, capsys):
    argv = ["--run", str(trained)]
    with pytest.raises(RunError, match="have other sizes than the run's: expected embedding EmbeddingSpec"):
        predict.main([*argv, "--dataset", "digits", "--data_path", str(other_sizes.path)])
    with pytest.raises(ZooError, match=r"6 checkpoints cannot be used:\n.*has shape \(4, 1, 2, 2\), expected \(16, 1"):
        predict.main([*argv, str(other_sizes.path)])
    save_file(nn.Sequential(nn.Linear(2, 1)).state_dict(), other_sizes.path / "mlp.safetensors")
    (other_sizes.path / "mlp.csv").write_text("file,accuracy\nmlp.safetensors,0.5\n")
    argv += ["--data_path", str(other_sizes.path), "--table", str(other_sizes.path / "mlp.csv")]
    with pytest.raises(RunError, match=r"kind than the run's: expected transformer of .*, got MLP"):
        predict.main(argv)


def test_a_runs_table_is_not_that_of_another_data_set(trained, small_zoo, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"dataset": "own", "data_path": "/gone", "table": "/gone/own.csv"}
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/digits_transformer").symlink_to(small_zoo)
    assert predict.main(["--run", "run", "--dataset", "digits"]) == 0
    assert "the run's own test split: 9 networks" in capsys.readouterr().out
