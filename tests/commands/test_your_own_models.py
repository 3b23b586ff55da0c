"""The page on a user's own models runs word by word, its trainings for two epochs."""

import re
import shlex
from functools import partial
from pathlib import Path

import torch

from nfn_transformer import main, predict
from nfn_transformer.training import number_tasks, report
from nfn_transformer.training.metrics import tau_interval

PAGE = (Path(__file__).parents[2] / "docs/your_own_models.md").read_text()


def outlines(lines):
    """Return lines without their numbers."""
    return {re.sub(r"-?\d+(\.\d+)?", "0", line.strip()) for line in lines}


def test_the_page_from_sixty_state_dicts_to_a_ranking_of_ten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(number_tasks, "tau_interval", partial(tau_interval, draws=5))
    for module in (number_tasks, report):
        monkeypatch.setattr(module, "save_png", lambda *_, **__: None)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(code, "docs/your_own_models.md", "exec"), {})
    lines = re.findall(r"^ +nfn-transformer (\S+) (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    assert [command for command, _ in lines] == ["train", "predict", "predict", "predict"]
    shown = []
    for command, words in lines:
        argv = shlex.split(words.removesuffix(" | sort -r"))
        module, fewer = (main, ["--epochs", "2", "--ensemble", "1"]) if command == "train" else (predict, [])
        assert module.main([*argv, *fewer, "--device", "cpu"]) == 0
        shown.append(capsys.readouterr())
    assert "files by 'path', labels by 'accuracy'" in shown[0].out
    output = re.findall(r"^ {4}(?!nfn-transformer)(\S.*)$", PAGE.replace(code, ""), re.MULTILINE)
    assert len(output) == 6
    assert outlines(output) <= outlines("".join(each.out for each in shown).splitlines())
    assert re.search(r"out of fold tau .*\(60 networks\)", shown[0].out)
    plain, calibrated = ([line.split() for line in shown[place].out.splitlines()] for place in (1, 3))
    assert sorted(name for _, name in plain) == [f"new/net{number}.pt" for number in range(60, 70)]
    assert ": 10 networks; warning: fewer than 30 tell little\ntau " in shown[2].out
    assert "columns of truth.csv: files by 'path', labels by 'accuracy' (guessed" in shown[2].err
    assert "columns of few.csv: files by 'path', labels by 'accuracy' (guessed" in shown[3].err
    assert "calibrated to 5 known networks" in shown[3].err
    assert not any("taken as in the run" in each.err for each in shown)  # --n_heads 2 told the heads of all
    numbers = [torch.tensor([float(number) for number, _ in each]) for each in (plain, calibrated)]
    assert (numbers[1] - numbers[0]).abs().max() > 0.01
