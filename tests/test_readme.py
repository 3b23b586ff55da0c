"""The README's example runs as it stands, and its commands name flags and files that exist."""

import re
import shlex
from pathlib import Path

import pytest

from nfn_transformer import main, predict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_librarys_example(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    errors = re.findall(r"tensor\(([^,)]+)", capsys.readouterr().out)
    assert len(errors) == 2
    assert all(float(error) < 1e-9 for error in errors)


@pytest.mark.parametrize("line", re.findall(r"^ +python nfn_transformer/main.py (--.+)$", README, flags=re.MULTILINE))
def test_its_commands_parse(line):
    words = shlex.split(line)
    if words != ["--help"]:
        flags = main.build_parser().parse_args(words)
        assert flags.dataset in ("mnist", "ag_news")


def test_its_predict_commands_parse():
    lines = re.findall(r"^ +python nfn_transformer/predict.py (.+)$", README, flags=re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        predict.build_parser().parse_args(shlex.split(line.replace("[CHECKPOINT ...]", "")))


def test_its_files_exist():
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", README)
    scripts = re.findall(r"scripts/[a-z_/]+\.(?:sh|py)", README)
    assert links
    assert scripts
    assert all((ROOT / path).is_file() for path in (*links, *scripts))
