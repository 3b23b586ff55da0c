"""Run directories: one process writes at a time, what is lost is told, and pictures come last."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import fail

from nfn_transformer import main, predict
from nfn_transformer.training import report
from nfn_transformer.training.number_tasks import AccuracyTask
from nfn_transformer.training.run_directory import RunDirectory

QUICK = ("--enc_mode", "no", "--cls_mode", "no", "--epochs", "2", "--dataset", "digits", "--device", "cpu")


@pytest.fixture(scope="module")
def finished(small_zoo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    assert main.main([*QUICK, "--data_path", str(small_zoo), "--out_dir", str(path)]) == 0
    return path


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


HOLD = """
import sys, time
from pathlib import Path
from nfn_transformer.training.run_directory import RunDirectory
run = RunDirectory.open(Path(sys.argv[1]))
run.lock()
print("held", flush=True)
time.sleep(60)
"""


def test_23_a_run_that_is_being_written_is_locked_until_its_process_ends_in_any_way(run, capsys):
    (run / "results.json").unlink()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    errors = fail(main.main, capsys, "--resume", run)
    assert errors == f"error: {run}: another process is writing this run; wait for it, or stop it\n"
    holder.kill()
    holder.communicate()
    assert main.main(["--resume", str(run)]) == 0


def test_a_new_run_is_locked_from_the_beginning_and_free_in_the_end(small_zoo, tmp_path, monkeypatch):
    refused = []

    def evaluate(data, history, predictor, directory, seed, ceilings):
        with pytest.raises(Exception, match="another process is writing this run"):
            RunDirectory.open(directory.path).lock()
        refused.append(True)
        return report.evaluate_best(data, history, predictor, directory, seed)

    monkeypatch.setattr("nfn_transformer.cli.training_command.evaluate_best", evaluate)
    assert main.main([*QUICK, "--data_path", str(small_zoo), "--out_dir", str(tmp_path / "run")]) == 0
    assert refused
    RunDirectory.open(tmp_path / "run").lock()


def test_a_lost_state_is_told_before_a_run_begins_anew(run, capsys):
    (run / "results.json").unlink()
    assert main.main(["--resume", str(run)]) == 0
    assert f"warning: {run}/state.pt is gone; the run begins anew" in capsys.readouterr().err


def test_the_folder_of_several_seeds_lists_their_runs(run, capsys):
    for seed in (1, 2):
        shutil.copytree(run, run.parent / f"several/seed{seed}")
    several = run.parent / "several"
    errors = fail(main.main, capsys, "--resume", several)
    assert f"it holds runs of several seeds: {several}/seed1 {several}/seed2" in errors


def test_an_unfinished_run_predicts_with_a_warning(run, small_zoo, capsys):
    file = str(next(small_zoo.glob("digits/*.pt")))
    assert predict.main(["--run", str(run), file]) == 0
    assert capsys.readouterr().err == ""
    (run / "results.json").unlink()
    assert predict.main(["--run", str(run), file]) == 0
    assert f"warning: {run}: the run is not finished; this is its best epoch so far" in capsys.readouterr().err


def test_37_few_tested_networks_are_told(run, capsys):
    assert main.main(["--resume", str(run)]) == 0
    assert "(9 networks; warning: fewer than 30 tell little)" in capsys.readouterr().out


def test_9_results_come_before_pictures(run, monkeypatch):
    results = json.loads((run / "results.json").read_text())
    for name in ("results.json", "test_predictions.png", "learning_curves.png"):
        (run / name).unlink()

    def no_picture(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr(AccuracyTask, "draw", no_picture)
    with pytest.raises(RuntimeError, match="no picture"):
        main.main(["--resume", str(run)])
    assert json.loads((run / "results.json").read_text()) == results


DRAW = """
import os, sys
from pathlib import Path
from nfn_transformer.figures import new_figure, save_png
figure = new_figure(2, 2)
figure.add_subplot().plot([0, 1])
save_png(figure, Path(sys.argv[1]))
assert os.environ["MPLBACKEND"]
"""


def test_9_the_backend_of_a_notebook_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://of_another_environment.backend_inline")
    subprocess.run([sys.executable, "-c", DRAW, str(tmp_path / "figure.png")], check=True)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_34_a_private_umask_is_respected(small_zoo, tmp_path):
    before = os.umask(0o077)
    try:
        words = [*QUICK, "--epochs", "1", "--data_path", str(small_zoo), "--out_dir", str(tmp_path / "run")]
        assert main.main(words) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "run").iterdir()} == {0o600}
