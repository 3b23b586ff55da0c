"""Without the libraries of an extra everything else works, and what needs one is told in one line.

A child process hides them, as an environment without them would; it runs several commands.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())

CHILD = """
import contextlib, io, json, sys
from nfn_transformer.__main__ import main
from nfn_transformer.cli.command_line import run_command

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"xgboost", "lightgbm", "torch_geometric", "matplotlib", "wandb", "submitit"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
results = []
for words in json.load(sys.stdin):
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            run_command(main, words)
        except SystemExit as ended:
            results.append((ended.code, errors.getvalue(), output.getvalue()))
print(json.dumps(results))
"""

QUICK = ("--dataset", "digits", "--epochs", "1", "--device", "cpu", "--data_path")


@pytest.fixture(scope="module")
def ended(small_zoo, tmp_path_factory) -> dict[str, tuple[int, str, str]]:
    """Exit status, stderr and stdout of each command, without any extra."""
    folder, zoo = tmp_path_factory.mktemp("without_extras"), str(small_zoo)
    (folder / "grid.yaml").write_text(
        "title: t\nrows: [{name: r, command: main, flags: {enc_mode: no, epochs: 1}}]\n"
        f"columns: [{{name: c}}]\nseeds: [1]\nflags: {{dataset: digits, data_path: {zoo}}}\n"
    )
    trees = ("--dataset", "digits", "--device", "cpu", "--data_path", zoo, "--model")
    tiny = (
        "--runs",
        "4",
        "--embed_dim",
        "6",
        "--hidden",
        "5",
        "--patch",
        "4",
        "--epochs",
        "1",
        "--train_images",
        "64",
        "--test_images",
        "32",
        "--device",
        "cpu",
    )
    commands = {
        "train": ("train", *QUICK, zoo, "--enc_mode", "no", "--out_dir", "run"),
        "predict": ("predict", "--run", "run", "--split", "test"),
        "report": ("reproduce", "grid.yaml", "--report", "--device", "cpu"),
        "extra_trees": ("gbm", *trees, "extra_trees", "--n_estimators", "9", "--out_dir", "trees"),
        "make-zoo": ("make-zoo", "--out", "zoo", *tiny),
        "graph": ("train", *QUICK, zoo, "--enc_mode", "graph", "--out_dir", "graph"),
        "wandb": ("train", *QUICK, zoo, "--enc_mode", "no", "--wandb", "--out_dir", "wandb"),
        "slurm": ("reproduce", "grid.yaml", "--launcher", "local", "--device", "cpu"),
        "xgboost": ("xgb", *trees, "gbtree", "--out_dir", "xgboost"),
        "lightgbm": ("gbm", *trees, "gbdt", "--out_dir", "lightgbm"),
    }
    child = [sys.executable, "-c", CHILD]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    texts = json.dumps(list(commands.values()))
    done = subprocess.run(child, input=texts, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(zip(commands, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("command", ["train", "predict", "extra_trees", "make-zoo"])
def test_what_needs_no_extra_works(command, ended):
    status, errors, output = ended[command]
    assert status == 0, errors
    assert "Traceback" not in errors + output


def test_a_training_without_plots_says_so(ended):
    assert 'requires matplotlib: pip install "nfn-transformer[plots]"\n' in ended["train"][1]
    assert "tau" in ended["train"][2]


def test_a_table_without_plots_is_written(ended):
    status, _, output = ended["report"]
    assert status == 1  # its cell is not finished
    assert output.endswith("table.md, table.tex, table.csv, cells.csv\n")


@pytest.mark.parametrize(
    ("command", "extra", "library"),
    [
        ("graph", "graph", "torch_geometric"),
        ("wandb", "wandb", "wandb"),
        ("slurm", "slurm", "submitit"),
        ("xgboost", "trees", "xgboost"),
        ("lightgbm", "trees", "lightgbm"),
    ],
)
def test_a_missing_extra_is_named(command, extra, library, ended):
    status, errors, _ = ended[command]
    assert status == 2
    assert errors.endswith(f'requires {library}: pip install "nfn-transformer[{extra}]"\n')
    assert "Traceback" not in errors
    assert any(each.startswith(library) for each in PYPROJECT["project"]["optional-dependencies"][extra])
