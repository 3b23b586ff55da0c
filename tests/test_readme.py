"""The README's example runs as it stands, and its commands name flags and files that exist."""

import re
import shlex
from pathlib import Path

import pytest

from nfn_transformer import gbm, main, make_zoo, predict, reproduce, xgb
from nfn_transformer.grids.grid_file import read_grid

COMMANDS = """
--enc_mode inv --classifier_nfn_channels 10,10 --transformers_nfn_channels 10 --wandb False --dataset mnist --data_path data/mnist_transformer --cut_off 0
--enc_mode inv --emb_mode no --classifier_nfn_channels 10,10 --transformers_nfn_channels 10  --wandb False --dataset ag_news --data_path data/ag_news_transformer --cut_off 0
--enc_mode mlp --classifier_nfn_channels 50,50 --transformers_nfn_channels 50 --num_out_classify 50 --num_out_embedding 50 --num_out_encoder 50 --wandb False --dataset mnist --data_path data/mnist_transformer --cut_off 0
--enc_mode mlp --emb_mode no --classifier_nfn_channels 50,50 --transformers_nfn_channels 50 --num_out_classify 50 --num_out_encoder 50 --wandb False --dataset ag_news --data_path data/ag_news_transformer --cut_off 0
--enc_mode statnn --cls_mode statnn --classifier_nfn_channels 256 --transformers_nfn_channels 256 --num_out_classify 256 --num_out_embedding 64 --num_out_encoder 256 --wandb False --dataset mnist --data_path data/mnist_transformer --cut_off 0
--enc_mode statnn --cls_mode statnn --emb_mode no --classifier_nfn_channels 256 --transformers_nfn_channels 256 --num_out_classify 256 --num_out_encoder 256 --wandb False --dataset ag_news --data_path data/ag_news_transformer --cut_off 0
""".strip().splitlines()  # noqa: E501 - the published lines as they are

TREE_COMMANDS = """
xgb.py --wandb False --dataset mnist --data_path data/mnist_transformer --cut_off 0
xgb.py --wandb False --dataset ag_news --data_path data/ag_news_transformer --cut_off 0
gbm.py --model gbdt --wandb False --dataset mnist --data_path data/mnist_transformer --cut_off 0
gbm.py --model gbdt  --wandb False --dataset ag_news --data_path data/ag_news_transformer --cut_off 0
gbm.py --model rf --wandb False --dataset mnist --data_path data/mnist_transformer --cut_off 0
gbm.py --model rf  --wandb False --dataset ag_news --data_path data/ag_news_transformer --cut_off 0
""".strip().splitlines()

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PUBLISHED = re.search(r"^## The published commands$(.*?)^##", README, flags=re.MULTILINE | re.DOTALL).group(1)
PROGRAMS = {
    "main.py": main,
    "xgb.py": xgb,
    "gbm.py": gbm,
    "predict.py": predict,
    "make_zoo.py": make_zoo,
    "reproduce.py": reproduce,
}
EVERY_COMMAND = re.findall(
    r"^ +python nfn_transformer/(\S+\.py .+)$",
    README.replace("\\\n", " ").replace(" [CHECKPOINT ...]", ""),
    re.MULTILINE,
)


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize(("example", "shown"), [*zip(EXAMPLES, (2, 4), strict=True)], ids=["blocks", "plain"])
def test_the_librarys_examples(example, shown, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(example, "README.md", "exec"), {})
    errors = re.findall(r"tensor\(([^,)]+)", capsys.readouterr().out)
    assert len(errors) == shown
    assert all(float(error) < 1e-9 for error in errors)


def test_the_example_on_plain_networks_is_short():
    assert len(EXAMPLES[1].splitlines()) < 25


def test_it_shows_the_published_commands():
    assert re.findall(r"^ +python nfn_transformer/main.py (.+)$", PUBLISHED, flags=re.MULTILINE) == COMMANDS


def test_it_shows_the_published_commands_of_the_tree_models():
    shown = re.findall(r"^ +python nfn_transformer/((?:xgb|gbm).py .+)$", PUBLISHED, flags=re.MULTILINE)
    assert shown == TREE_COMMANDS


@pytest.mark.parametrize("line", TREE_COMMANDS)
def test_the_tree_models_commands_parse(line):
    program, *words = shlex.split(line)
    given = dict(zip(words[::2], words[1::2], strict=True))
    flags = {"xgb.py": xgb, "gbm.py": gbm}[program].build_parser().parse_args(words)
    assert flags.model == given.get("--model", "gbtree")
    assert (flags.dataset, flags.data_path, flags.cut_off) == (given["--dataset"], given["--data_path"], 0)


def test_it_shows_the_smoke_tables_file_and_existing_grids():
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert shown == (ROOT / "scripts/tables/smoke.yaml").read_text()
    grids = re.findall(r"python nfn_transformer/reproduce.py (\S+)", README)
    assert grids
    for grid in grids:
        read_grid(ROOT / grid)


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_parse(line):
    words = shlex.split(line)
    given = dict(zip(words[::2], words[1::2], strict=True))
    flags = main.build_parser().parse_args(words)
    found = vars(flags) | vars(main.model_config(flags))
    for name in ("enc_mode", "emb_mode", "dataset", "data_path"):
        assert found[name] == given.get(f"--{name}", "mlp"), name


@pytest.mark.parametrize("line", EVERY_COMMAND)
def test_every_command_parses(line):
    program, *words = shlex.split(line, comments=True)
    flags = PROGRAMS[program].build_parser().parse_args(words)
    if PROGRAMS[program] is main:  # else the chosen branches would not read a flag
        main.model_config(flags)


def test_it_shows_every_program():
    assert {line.split()[0] for line in EVERY_COMMAND} == set(PROGRAMS)


def test_its_files_exist():
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", README)
    scripts = re.findall(r"scripts/[a-z_/]+\.(?:sh|py)", README)
    assert links
    assert scripts
    assert all((ROOT / path).is_file() for path in (*links, *scripts))
