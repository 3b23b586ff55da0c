"""The encoder of docs/extending.md: as a file of the package, with its test, and as a plugin of main.py."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nfn_transformer import main, predict
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.grids.cells import plan
from nfn_transformer.grids.grid_file import read_grid
from nfn_transformer.models import registry
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.reproduce import COMMANDS

pytestmark = pytest.mark.usefixtures("quick_python")

REPOSITORY = Path(__file__).parents[2]
ENCODER, TEST = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/extending.md").read_text(), re.M | re.S)
QUICK = ("--enc_mode", "spectral", "--dataset", "digits", "--epochs", "1", "--device", "cpu", "--wandb", "no")


def run_with(package: Path, *arguments) -> str:
    """Run Python with a copy of the package; its stdout."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    words = [sys.executable, "-W", "error", *map(str, arguments)]
    finished = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=package, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def forget_plugins(monkeypatch) -> Callable[[], None]:
    """Makes the registry that of the package alone, as in a new process; after the test it is as before."""
    package = {role.name: dict(registry.entries(role)) for role in registry.ROLES}

    def forget() -> None:
        monkeypatch.setattr(registry, "_entries", {name: dict(entries) for name, entries in package.items()})
        monkeypatch.setattr(registry, "_plugins", set())

    forget()
    return forget


@pytest.fixture
def plugin(tmp_path, forget_plugins) -> Path:
    path = tmp_path / "my_encoder.py"
    path.write_text(ENCODER)
    return path


def test_the_shown_encoder_is_short():
    assert len([line for line in ENCODER.splitlines() if line.strip()]) <= 45


def test_an_encoder_is_one_file_and_its_test_another(small_zoo, tmp_path):
    shutil.copytree(REPOSITORY / "nfn_transformer", tmp_path / "nfn_transformer")
    (tmp_path / "tests/models").mkdir(parents=True)
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    shutil.copy(REPOSITORY / "tests/conftest.py", tmp_path / "tests")
    (tmp_path / "nfn_transformer/models/encoders/spectral.py").write_text(ENCODER)
    (tmp_path / "tests/models/test_spectral.py").write_text(TEST)
    assert "1 passed" in run_with(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/models")
    flags = (*QUICK, "--data_path", small_zoo, "--spectral_width", 8, "--out_dir", "run")
    text = run_with(tmp_path, "nfn_transformer/main.py", *flags)
    assert "encoder spectral, classifier no, embedding no" in text
    predictor = json.loads((tmp_path / "run/config.json").read_text())["predictor"]
    assert (predictor["spectral_width"], predictor["cls_mode"], predictor["plugins"]) == (8, "no", {})


def test_a_plugin_trains_resumes_and_predicts_wherever_it_lies(plugin, small_zoo, tmp_path, forget_plugins, capsys):
    run = tmp_path / "run"
    flags = (*QUICK, "--data_path", str(small_zoo), "--out_dir", str(run))
    assert main.main(["--plugin", str(plugin), *flags]) == 0
    predictor = json.loads((run / "config.json").read_text())["predictor"]
    assert (predictor["spectral_width"], list(predictor["plugins"])) == (32, [str(plugin)])
    resume, ask = ["--resume", str(run)], ["--run", str(run), "--device", "cpu", str(small_zoo)]
    predictions = []
    for arguments in ([], ["--plugin", str(tmp_path / "moved.py")]):
        (run / "results.json").unlink()
        if arguments:
            plugin.rename(tmp_path / "moved.py")
            for command, words in ((main.main, resume), (predict.main, ask)):
                forget_plugins()
                with pytest.raises(RunError, match=f"{plugin}: no such file, .* requires --plugin"):
                    command(words)
        forget_plugins()
        assert main.main([*resume, *arguments]) == 0
        forget_plugins()
        capsys.readouterr()
        assert predict.main([*ask, *arguments]) == 0
        output = capsys.readouterr()
        assert (f"running the plugin that the run recorded: {plugin}" in output.err) == (not arguments)
        predictions.append(output.out)
    assert predictions[0] == predictions[1]
    assert predictions[0].count(".pt") == 60


def test_a_plugins_flags_are_explained_and_checked(plugin, small_zoo, capsys):
    with pytest.raises(SystemExit):
        main.main(["--plugin", str(plugin), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "spectral (blocks), largest and mean singular value of each weight matrix; invariant to permutations" in text
    assert "width of the hidden layer (with --enc_mode spectral; default: 32)" in text
    with pytest.raises(SystemExit):
        main.main([*QUICK, "--spectral_width", "0"])
    assert "argument --spectral_width: must be at least 1" in capsys.readouterr().err
    for flags, message in (
        (["--transformers_nfn_channels", "5"], "--transformers_nfn_channels 5: not read by --enc_mode spectral "),
        (["--dropout", "0.1"], r"--dropout 0\.1: not read by --enc_mode spectral "),
        (["--enc_mode", "inv", "--spectral_width", "8"], "not read by --enc_mode inv .* requires --enc_mode spectral$"),
    ):
        with pytest.raises(UserError, match=message):
            main.main([*QUICK, "--data_path", str(small_zoo), *flags])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no such file"),
        (lambda text: "", "registers no branch"),
        (lambda text: text + "\n1 / 0", "cannot be loaded: ZeroDivisionError"),
        (lambda text: text + "\nraise SystemExit(3)", "cannot be loaded: SystemExit"),
        (lambda text: text.replace('"spectral"', '"no"'), "'no' is the choice of no branch"),
        (lambda text: text.replace('"spectral"', '"inv"'), "--enc_mode inv is a choice of the package already"),
        (lambda text: text.replace("spectral_width", "graph_dim"), "--graph_dim is a flag of GraphConfig already"),
        (lambda text: text.replace("spectral_width", "lr"), "conflicting option string: --lr"),
    ],
)
def test_plugins_that_cannot_be_used_are_named(change, message, tmp_path, forget_plugins):
    path = tmp_path / "wrong.py"
    if change is not None:
        path.write_text(change(ENCODER))
    with pytest.raises(UserError, match=f"--plugin {path}: .*{message}"):
        main.main(["--plugin", str(path), "--help"])


def test_a_cell_of_a_plugin_is_known_by_the_files_content(plugin, small_zoo, tmp_path, forget_plugins):
    """The place of the file is no part of its key, other numbers are."""
    names = []
    for path, text in (
        (plugin, ENCODER),
        (tmp_path / "elsewhere.py", ENCODER),
        (tmp_path / "changed.py", ENCODER.replace("relu()", "sigmoid()")),
    ):
        forget_plugins()
        path.write_text(text)
        row = {"name": "spectral", "command": "main", "flags": {"plugin": str(path), "enc_mode": "spectral"}}
        keys = {"rows": [row], "columns": [{"name": "all", "flags": {}}], "flags": {"dataset": "digits"}}
        (tmp_path / "grid.yaml").write_text(json.dumps({"title": "Plugins", "seeds": [1], **keys}))
        (cell,), _ = plan(read_grid(tmp_path / "grid.yaml"), COMMANDS, tmp_path / "cells", "cpu", str(small_zoo))
        assert str(path) in cell.job.begin
        names.append(cell.directory.name)
    assert names[0] == names[1] != names[2]


def test_a_recorded_plugin_that_has_changed_is_not_run(plugin, small_zoo, tmp_path, forget_plugins):
    run = tmp_path / "run"
    flags = ("--data_path", str(small_zoo), "--out_dir", str(run))
    assert main.main(["--plugin", str(plugin), *QUICK, *flags]) == 0
    plugin.write_text(ENCODER.replace("relu()", "sigmoid()"))
    ask = ["--run", str(run), "--device", "cpu", str(small_zoo)]
    forget_plugins()
    with pytest.raises(RunError, match=f"{plugin}: has changed since the run began, .* requires --plugin"):
        predict.main(ask)
    forget_plugins()
    assert predict.main([*ask, "--plugin", str(plugin)]) == 0


def test_a_run_directory_cannot_name_a_file_of_the_current_folder(plugin, monkeypatch, forget_plugins):
    monkeypatch.chdir(plugin.parent)
    values = {**ModelConfig().to_json(), "enc_mode": "spectral", "plugins": {plugin.name: "00000000"}}
    with pytest.raises(RunError, match=f"{plugin.name}: no such file"):
        ModelConfig.from_json(values)
    with pytest.raises(TypeError, match="'plugins' is "):
        ModelConfig.from_json({**values, "plugins": [plugin.name]})


def test_a_plugin_changes_no_other_choice(plugin, tmp_path, forget_plugins):
    before = ModelConfig().key_values()
    registry.load_plugin(str(plugin))
    assert ModelConfig().key_values() == before
    again = tmp_path / "again.py"
    again.write_text(ENCODER)
    with pytest.raises(UserError, match=f"--enc_mode spectral is a choice of {plugin} already"):
        registry.load_plugin(str(again))


def test_settings_without_a_flag_and_with_two_meanings_are_refused(tmp_path, forget_plugins):
    path = tmp_path / "wrong.py"
    path.write_text(ENCODER.replace('setting(32, "width of the hidden layer", **COUNT)', "32"))
    with pytest.raises(UserError, match="'spectral_width' of SpectralConfig has no flag"):
        registry.load_plugin(str(path))
    head = ENCODER[ENCODER.index("register(") :].replace("ENCODER", "CLASSIFIER").replace("SpectralConfig", "Other")
    other = '\n\n@dataclass(frozen=True)\nclass Other(BranchConfig):\n    spectral_width: str = setting("a", "b")\n\n\n'
    path.write_text(ENCODER.replace("import COUNT", "import CLASSIFIER, COUNT") + other + head)
    with pytest.raises(UserError, match="--spectral_width is a flag of SpectralConfig already"):
        registry.load_plugin(str(path))
