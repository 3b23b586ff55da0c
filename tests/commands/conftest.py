"""Fixtures of the tests of reproduce.py: a folder and signals of their own, and small grids."""

import json
import signal
from pathlib import Path

import pytest


@pytest.fixture
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def signals_as_before():
    """Ctrl-C is heard also where a shell has started the tests in its background; what was set before comes back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def grid(small_zoo, tmp_path):
    """Writes grids of these rows, as JSON, which is YAML; the words that run one."""

    def written(*rows: dict, data_path: Path | str = small_zoo, **keys) -> tuple:
        columns = [{"name": "all", "flags": {"cut_off": 0}}]
        flags = {"dataset": "digits", "data_path": str(data_path), "wandb": "False"}
        values = {"title": "A cut", "rows": rows, "columns": columns, "seeds": [1], "flags": flags, **keys}
        (tmp_path / "cut.yaml").write_text(json.dumps(values))
        places = ("--cells", tmp_path / "cells", "--out_dir", tmp_path / "table")
        return (tmp_path / "cut.yaml", *places, "--device", "cpu")

    return written
