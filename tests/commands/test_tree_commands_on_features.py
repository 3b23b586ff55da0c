"""gbm.py and xgb.py on other features than flattened weights, and the forest of scikit-learn, as users run them."""

import csv
import json

import pytest
from running import fail
from scipy.stats import kendalltau
from tree_runs import read, rows

from nfn_transformer import gbm, predict, xgb


def train(command, path, zoo, *words) -> int:
    flags = ("--dataset", "digits", "--data_path", zoo, "--seed", 1, "--device", "cpu", "--out_dir", path, *words)
    return command.main([str(word) for word in flags])


@pytest.mark.parametrize("features", ["statistics", "invariants", "hyperparameters"])
def test_extra_trees_learn_from_few_networks(features, bundled_zoo, tmp_path, capsys):
    path = tmp_path / "run"
    few = ("--model", "extra_trees", "--features", features, "--train_networks", 60)
    few += ("--where", "optimizer=adam") if features == "invariants" else ()  # reading them takes long
    few += () if features == "hyperparameters" else ("--n_estimators", 100)
    assert train(gbm, path, bundled_zoo, *few) == 0
    printed = capsys.readouterr().out
    assert "model: scikit-learn-extra_trees on " in printed
    assert "best round 1 of 1: validation tau" in printed
    config, results = read(path / "config.json"), read(path / "results.json")
    assert config["predictor"]["features"] == features
    assert results["trees"] == (500 if features == "hyperparameters" else 100)
    table = rows(path / "test_predictions.csv")
    predicted, accuracy = ([float(row[name]) for row in table] for name in ("predicted", "accuracy"))
    assert results["test"]["tau"] == pytest.approx(kendalltau(predicted, accuracy).statistic, abs=1e-9)
    assert results["test"]["tau"] > 0.15
    assert predict.main(["--run", str(path), "--dataset", "digits", "--out", str(tmp_path / "again.csv")]) == 0
    with open(tmp_path / "again.csv", newline="") as file:
        again = [float(row["predicted"]) for row in csv.DictReader(file)]
    assert again == pytest.approx(predicted, abs=1e-6)


@pytest.mark.parametrize(("command", "model"), [(xgb, "gbtree"), (gbm, "gbdt")], ids=["xgb.py", "gbm.py"])
def test_boosted_trees_read_statistics(command, model, bundled_zoo, tmp_path, capsys):
    path = tmp_path / "run"
    assert train(command, path, bundled_zoo, "--model", model, "--features", "statistics", "--cut_off", 0.6) == 0
    assert "on seven statistics of each weight matrix and bias" in capsys.readouterr().out
    assert read(path / "config.json")["predictor"]["features"] == "statistics"
    assert read(path / "results.json")["test"]["tau"] > 0.3


def test_checkpoints_alone_do_not_tell_hyperparameters(small_zoo, tmp_path, capsys):
    path = tmp_path / "run"
    few = ("--model", "extra_trees", "--n_estimators", 5)
    assert train(gbm, path, small_zoo, *few, "--features", "hyperparameters") == 0
    message = fail(predict.main, capsys, "--run", path, small_zoo)
    assert "reads hyperparameters, which weights do not tell" in message


def test_a_zoo_whose_metadata_tell_nothing_is_refused_before_a_run_begins(small_zoo, tmp_path, capsys):
    bare = tmp_path / "zoo/metadata"
    bare.mkdir(parents=True)
    (tmp_path / "zoo/digits").symlink_to(small_zoo / "digits")
    kept = ("ckpt_epoch", "ckpt_file", "test_top1_accuracy")
    with open(small_zoo / "metadata/digits.csv", newline="") as file, open(bare / "digits.csv", "w") as out:
        writer = csv.DictWriter(out, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(file))
    words = ("--dataset", "digits", "--data_path", tmp_path / "zoo", "--out_dir", tmp_path / "run")
    message = fail(gbm.main, capsys, *words, "--model", "extra_trees", "--features", "hyperparameters")
    assert "--features hyperparameters: the zoo's metadata tells none of lr," in message
    assert not (tmp_path / "run").exists()


def test_damaged_trees_are_named(small_zoo, tmp_path, capsys):
    path = tmp_path / "run"
    assert train(gbm, path, small_zoo, "--model", "extra_trees", "--n_estimators", 5) == 0
    assert "scikit-learn-extra_trees on flattened weights" in capsys.readouterr().out
    trees = path / "best.trees.safetensors"
    trees.write_bytes(trees.read_bytes()[:-8])
    assert "best.trees.safetensors: holds no trees: " in fail(predict.main, capsys, "--run", path, small_zoo)


def test_runs_of_earlier_versions_read_flattened_weights(small_zoo, tmp_path, capsys):
    path = tmp_path / "run"
    assert train(xgb, path, small_zoo) == 0
    config = read(path / "config.json")
    assert config["predictor"].pop("features") == "raw"
    (path / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert predict.main(["--run", str(path), "--dataset", "digits"]) == 0
    assert "the run's own test split" in capsys.readouterr().out
