"""Examples of README and docs/ run as they stand; their commands, links and paths name what exists."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

import nfn_transformer as nfn
from nfn_transformer import gbm, inspect_checkpoint, main, make_zoo, predict, reproduce, runs, xgb
from nfn_transformer.cli.command_line import CONSOLE_COMMANDS
from nfn_transformer.grids.grid_file import read_grid
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.zoo import metadata
from nfn_transformer.zoo.reading import read_zoo

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
    "runs.py": runs,
    "inspect_checkpoint.py": inspect_checkpoint,
}
PAGES = {"README.md": README} | {
    str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))
}
ALL_PAGES = "\n".join(PAGES.values())
SHOWN = ALL_PAGES.replace("\\\n", " ").replace(" [CHECKPOINT ...]", "")
EVERY_COMMAND = sorted(set(re.findall(r"^ +python nfn_transformer/(\S+\.py.*)$", SHOWN, re.MULTILINE)))
EVERY_CONSOLE_COMMAND = sorted(set(re.findall(r"^ +nfn-transformer (\S.*)$", SHOWN, re.MULTILINE)))
FLAGS = {
    flag
    for program in PROGRAMS.values()
    for action in program.build_parser()._actions
    for flag in action.option_strings
}
PLUGINS = ("--spectral_width", "my_encoder.py")  # of the file that docs/extending.md shows
FLAGS_OF_OTHERS = {
    *("--plot", "--rounds", "--group", "--only", "--quick", "--networks", "--seconds", "--variants", "--batch_sizes"),
    *(
        "--limit",
        "--sizes",
        "--alone",
        "--members",
        "--widths",
        "--ham",
        "--test_share",
        "--spam",
        "--minutes",
        "--pixels",
    ),  # of the scripts
    "--pixels",
    *("--nproc_per_node", "--strict"),  # of torchrun and mkdocs
    *("--job-name", "--partition", "--time", "--cpus-per-task", "--gpus-per-node", "--output"),  # of sbatch
}

EXAMPLES = re.findall(r"```python\n(.*?)```", PAGES["docs/library.md"], flags=re.DOTALL)


@pytest.mark.parametrize(
    ("example", "shown"),
    [*zip(EXAMPLES[1:], (2, 0, 4, 2, 1), strict=True)],
    ids=["blocks", "own", "plain", "sines", "standard"],
)
def test_the_librarys_examples(example, shown, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(example, "docs/library.md", "exec"), {})
    errors = re.findall(r"tensor\(([^,)]+)", capsys.readouterr().out)
    assert len(errors) == shown
    assert all(float(error) < 1e-9 for error in errors)


def test_the_example_of_a_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    names, fewer = {}, EXAMPLES[0].replace('"digits")', '"digits", where="train_fraction=1.0,dropout=0.1")')
    exec(compile(fewer, "docs/library.md", "exec"), names)
    assert re.match(r"tau 0\.\d+ \[.*\(\d+ networks.*\)\ntensor\(\[0\.\d+, 0\.\d+\]", capsys.readouterr().out)
    assert (tmp_path / "my_predictor/config.json").is_file()


def test_the_example_on_plain_networks_is_short():
    assert len(EXAMPLES[3].splitlines()) < 25


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
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGES["docs/commands.md"], flags=re.DOTALL)
    assert shown == (ROOT / "scripts/tables/smoke.yaml").read_text()
    grids = set(re.findall(r"python nfn_transformer/reproduce.py (\S+\.yaml)", ALL_PAGES))
    assert len(grids) >= 5
    for grid in grids:
        read_grid(ROOT / grid)


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_parse(line):
    words = shlex.split(line)
    given = dict(zip(words[::2], words[1::2], strict=True))
    flags = main.build_parser().parse_args(words)
    found = vars(flags) | vars(ModelConfig.from_flags(vars(flags)))
    for name in ("enc_mode", "emb_mode", "dataset", "data_path"):
        assert found[name] == given.get(f"--{name}", "mlp"), name


@pytest.mark.parametrize("line", EVERY_COMMAND)
def test_every_command_parses(line):
    program, *words = shlex.split(line, comments=True)
    if any(word in words for word in PLUGINS):
        assert {word for word in words if word.startswith("--") and word not in PLUGINS} <= FLAGS
        return
    if words == ["--help"]:
        return
    flags = PROGRAMS[program].build_parser().parse_args(words)
    if PROGRAMS[program] is main and not flags.resume:  # else the chosen branches would not read a flag
        ModelConfig.from_flags(vars(flags))


@pytest.mark.parametrize("line", EVERY_CONSOLE_COMMAND)
def test_every_console_command_parses(line):
    name, *words = shlex.split(line.partition(" | ")[0], comments=True)
    PROGRAMS[f"{CONSOLE_COMMANDS[name][0]}.py"].build_parser().parse_args(words)


def test_the_pages_show_every_program():
    assert {line.split()[0] for line in EVERY_COMMAND} == set(PROGRAMS)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page):
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)\s]+)\)", prose):
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_flags_that_a_page_names_exist(page):
    paths = re.findall(r"(?<![\w/.])(?:scripts|docs|nfn_transformer)/[\w/]+\.(?:sh|py|yaml|md)", PAGES[page])
    lacking = {path for path in paths if not (ROOT / path).is_file()}
    assert lacking <= {"nfn_transformer/models/encoders/spectral.py"}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PAGES[page]))
    assert named <= FLAGS | FLAGS_OF_OTHERS | {PLUGINS[0]}


def test_readme_has_pictures_links_and_scripts_and_fits_a_quarter_of_an_hour():
    assert re.findall(r"\]\((?!http|#)([^)]+)\)", README)
    assert re.findall(r"scripts/[a-z_/]+\.(?:sh|py)", README)
    assert len(README.splitlines()) <= 250


def test_the_zoo_format_example_is_a_zoo_that_main_reads(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", PAGES["docs/zoo_format.md"], flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/zoo_format.md", "exec"), {})
    zoo = read_zoo("my_zoo", "mine")
    assert (len(zoo), zoo.report.faults) == (12, ())
    assert len(zoo.spec.blocks) == 2


def test_the_api_reference_lists_every_public_name():
    listed = re.findall(r"^::: (\S+)\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE)
    assert sorted(name for _, name in listed) == sorted(set(nfn.__all__) - {"__version__"})
    assert all(nfn._MODULE_OF[name] == module for module, name in listed)


def test_the_recipe_of_several_sizes_is_the_file():
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGES["docs/making_zoos.md"], flags=re.DOTALL)
    assert shown == (ROOT / "scripts/zoos/shapes.yaml").read_text()


def test_the_table_of_a_runs_directory_and_the_columns_are_those_of_the_code():
    columns = set(re.findall(r"`(\w+)`", re.search(r"^\| column .*?\n\n", PAGES["docs/zoo_format.md"], re.M | re.S)[0]))
    assert columns >= {
        *metadata.SIZE_COLUMNS,
        *metadata.HYPERPARAMETER_COLUMNS,
        *itertools.chain(*metadata.LABEL_COLUMNS.values()),
    }
