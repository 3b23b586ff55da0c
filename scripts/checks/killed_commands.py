"""The commands that `kill_anywhere.py` kills: how each begins and goes on, and what it must leave behind."""

import csv
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from nfn_transformer import main, make_zoo, predict, read_zoo, reproduce

Command = tuple[Callable[[Sequence[str]], int], list[str]]
Files = dict[str, bytes]


class Lost(Exception):
    """Raised where a kill has lost or changed something."""


@dataclass(frozen=True)
class Inputs:
    """Inputs that all scenarios read."""

    zoo: Path
    """Folder of the first networks of the bundled zoo, with a cache."""
    run: Path
    """Finished run on that zoo."""


class Scenario:
    """A command that is killed, in a folder of its own."""

    def __init__(self, inputs: Inputs):
        self.inputs = inputs

    def prepare(self, folder: Path) -> None:
        """Make the command's inputs."""

    def command(self, folder: Path) -> Command | None:
        """Return the command that begins or goes on; None once all is finished."""
        raise NotImplementedError

    def finished(self, folder: Path) -> set[str]:
        """Return what is finished; after a kill and a command that goes on, nothing of it may have been made anew."""
        return set()

    def outcome(self, folder: Path) -> Files:
        """Return all files that must equal those of an unbroken run."""
        return {str(path.relative_to(folder)): content_of(path) for path in visible_files(folder)}


class Training(Scenario):
    """main.py, gone on by --resume."""

    def command(self, folder: Path) -> Command | None:
        run = folder / "run"
        if (run / "results.json").exists() and not (run / "state.pt").exists():
            return None
        if (run / "config.json").exists():
            return main.main, ["--resume", str(run)]
        flags = "--enc_mode statnn --cls_mode statnn --epochs 12 --dataset digits --device cpu --wandb False"
        return main.main, [*flags.split(), "--data_path", str(self.inputs.zoo), "--out_dir", str(run)]

    def finished(self, folder: Path) -> set[str]:
        # An epoch that is trained anew has other seconds.
        metrics = folder / "run/metrics.csv"
        return set(metrics.read_text(encoding="utf-8").splitlines()[1:]) if metrics.exists() else set()


def read(arguments: Sequence[str]) -> int:
    """Read a zoo and write its cache; print what was read."""
    zoo = read_zoo(arguments[0], "digits", progress=False)
    Path(arguments[1]).write_bytes(zoo.rows.numpy().tobytes() + zoo.labels.numpy().tobytes())
    return 0


class Caching(Scenario):
    """The reading of a zoo, which writes its cache; done twice after a kill: from what is there, and from the cache."""

    def prepare(self, folder: Path) -> None:
        shutil.copytree(self.inputs.zoo, folder / "zoo", copy_function=os.link, ignore=lambda *_: [".cache"])
        for cache in (folder / "zoo").rglob("*.safetensors"):
            cache.unlink()

    def command(self, folder: Path) -> Command | None:
        for name in (".first", ".second"):
            if not (folder / name).exists():
                return read, [str(folder / "zoo"), str(folder / name)]
        return None

    def outcome(self, folder: Path) -> Files:
        files = {path.name: b"" for path in (folder / "zoo").rglob("*.safetensors")}
        return {**files, "first": (folder / ".first").read_bytes(), "second": (folder / ".second").read_bytes()}


class ZooMaking(Scenario):
    """make_zoo.py, gone on by the same command."""

    def command(self, folder: Path) -> Command | None:
        if (folder / "zoo.zip").exists() and not (folder / "zoo.zip.parts").exists():
            return None
        flags = "--embed_dim 6 --hidden 5 --patch 4 --epochs 6 --runs 12 --population 3 --train_images 96 "
        flags += "--test_images 60 --device cpu"
        return make_zoo.main, ["--out", str(folder / "zoo.zip"), *flags.split()]

    def finished(self, folder: Path) -> set[str]:
        return {f"{path.name} {path.stat().st_mtime_ns}" for path in (folder / "zoo.zip.parts").glob("population_*.pt")}


class Grid(Scenario):
    """reproduce.py, gone on by the same command; its cells outlive a driver that was killed."""

    def prepare(self, folder: Path) -> None:
        flags = {"dataset": "digits", "data_path": str(self.inputs.zoo), "wandb": "False"}
        statistics = {"enc_mode": "statnn", "cls_mode": "statnn", "epochs": 12}
        rows = [{"name": "XGBoost", "command": "xgb", "flags": {}}]
        rows.append({"name": "StatNN", "command": "main", "flags": statistics})
        columns = [{"name": "all", "flags": {"cut_off": 0}}]
        grid = {"title": "Killed", "rows": rows, "columns": columns, "seeds": [1], "flags": flags}
        (folder / "grid.yaml").write_text(json.dumps(grid), encoding="utf-8")

    def command(self, folder: Path) -> Command | None:
        if (folder / ".finished").exists():
            return None
        return run_grid, [str(folder), "grid.yaml", "--cells", "cells", "--out_dir", "table", "--device", "cpu"]

    def finished(self, folder: Path) -> set[str]:
        return {f"{path} {path.stat().st_mtime_ns}" for path in folder.glob("cells/*/results.json")}

    def outcome(self, folder: Path) -> Files:
        # Logs hold each attempt, locks nothing.
        return {name: text for name, text in super().outcome(folder).items() if not name.endswith((".log", ".lock"))}


def run_grid(arguments: Sequence[str]) -> int:
    """Run a grid in a folder, and mark the end."""
    os.chdir(arguments[0])
    status = reproduce.main(arguments[1:])
    if status == 0:
        Path(".finished").touch()
    return status


class Prediction(Scenario):
    """predict.py --out, in place of an earlier file."""

    def prepare(self, folder: Path) -> None:
        (folder / "predicted.csv").write_text("file,predicted\nearlier.pt,0.5\n", encoding="utf-8")

    def command(self, folder: Path) -> Command | None:
        text = (folder / "predicted.csv").read_text(encoding="utf-8")
        if "earlier.pt" not in text:
            return None
        arguments = ["--run", str(self.inputs.run), str(self.inputs.zoo / "digits"), "--device", "cpu"]
        return predict.main, [*arguments, "--out", str(folder / "predicted.csv")]


SCENARIOS = {
    "training": Training,
    "caching": Caching,
    "zoo making": ZooMaking,
    "grid": Grid,
    "prediction": Prediction,
}


def visible_files(folder: Path) -> list[Path]:
    """Return all files but hidden ones and those in hidden folders."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def content_of(path: Path) -> bytes:
    """Return a file's content without costs, dates and places."""
    if path.name in ("metrics.csv", "cells.csv"):
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        costs = ("seconds", "epoch_seconds", "peak_mib")
        return repr([{name: value for name, value in row.items() if name not in costs} for row in rows]).encode()
    if path.suffix in (".json", ".yaml", ".md", ".csv", ".tex"):
        text = re.sub(r"\n## Costs\n.*?(?=\n## |\Z)", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        return re.sub(r"/[^\s\"]*/moment_\d+/", "", text).encode()
    return path.read_bytes()


def check_whole(folder: Path) -> None:
    """Raise Lost if a file with a final name is not whole."""
    for path in visible_files(folder):
        try:
            match path.suffix:
                case ".json":
                    json.loads(path.read_text(encoding="utf-8"))
                case ".csv" | ".md" | ".tex" | ".yaml":
                    if path.name != "grid.yaml" and not path.read_bytes().endswith(b"\n"):
                        raise ValueError("the last line has no end")
                case ".safetensors":
                    with safe_open(path, "pt") as file:
                        for name in file.keys():  # noqa: SIM118 - safetensors' file is no dictionary
                            file.get_tensor(name)
                case ".pt":
                    torch.load(path, weights_only=True)
                case ".zip":
                    with zipfile.ZipFile(path) as archive:
                        if archive.testzip() is not None:
                            raise ValueError("a member is damaged")
                case ".png":
                    if b"IEND" not in path.read_bytes()[-12:]:
                        raise ValueError("no end")
        except Exception as error:
            if "scratch" not in path.parts:
                raise Lost(f"{path}: is not whole: {error}") from error
