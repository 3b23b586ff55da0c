"""--all_sizes as users run it: one model for networks of several sizes, and clear errors where there is none."""

import pytest
from running import fail
from small_zoo import DEEP, SPEC, WIDE, SmallZoo, zoo_of_three_sizes

from nfn_transformer import gbm, main, predict
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import load_zoo


@pytest.fixture
def written(tmp_path) -> SmallZoo:
    return zoo_of_three_sizes(tmp_path / "zoo")


def words(written, *more) -> list[str]:
    return ["--dataset", "mnist", "--data_path", str(written.path), "--device", "cpu", *map(str, more)]


def test_one_model_trains_on_all_sizes_and_scores_them(written, tmp_path, capsys):
    run = tmp_path / "run"
    settings = ("--all_sizes", "--enc_mode", "complete", "--epochs", 3, "--seed", 1)
    assert main.main(words(written, *settings, "--out_dir", run)) == 0
    printed = capsys.readouterr().out
    assert "30 of 30 checkpoints can be used" in printed
    assert "split by seed 1: 21 train" in printed
    assert predict.main(["--run", str(run), "--dataset", "mnist", "--out", str(tmp_path / "again.csv")]) == 0
    assert "the run's own test split: 5 networks" in capsys.readouterr().out
    own, again = ((path).read_text().splitlines() for path in (run / "test_predictions.csv", tmp_path / "again.csv"))
    assert [line.split(",")[0] for line in own] == [line.split(",")[0] for line in again]
    for ours, theirs in zip(own[1:], again[1:], strict=True):
        assert float(ours.split(",")[1]) == pytest.approx(float(theirs.split(",")[1]), abs=1e-6)
    assert load_zoo(DataConfig("mnist", str(written.path), all_sizes=True)).specs == (SPEC, DEEP, WIDE)
    assert main.main(["--resume", str(run)]) == 0


def test_trees_read_hyperparameters_of_all_sizes(written, tmp_path, capsys):
    trees = ("--model", "extra_trees", "--all_sizes", "--features")
    assert gbm.main(words(written, *trees, "hyperparameters", "--out_dir", tmp_path / "run")) == 0
    assert "split by seed 3: 21 train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (main, ("--enc_mode", "inv")),
        (main, ("--enc_mode", "complete", "--cls_mode", "mlp")),
        (gbm, ("--model", "extra_trees", "--features", "statistics")),
        (gbm, ("--model", "extra_trees", "--features", "invariants")),
    ],
)
def test_what_reads_one_size_only_is_refused(command, flags, written, tmp_path, capsys):
    message = fail(command.main, capsys, *words(written, "--all_sizes", *flags, "--out_dir", tmp_path / "run"))
    assert "--all_sizes True: zoo 'mnist' has networks of 3 sizes, which only --enc_mode complete reads" in message
    assert not (tmp_path / "run").exists()


def test_copies_of_several_sizes_are_refused(written, tmp_path, capsys):
    settings = ("--all_sizes", "--enc_mode", "complete", "--augment")
    message = fail(main.main, capsys, *words(written, *settings, "--out_dir", tmp_path / "run"))
    assert "--augment True: cannot be combined with --all_sizes True; it enlarges zoos of one size" in message
    assert not (tmp_path / "run").exists()
