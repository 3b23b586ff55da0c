"""reproduce_mnist.sh and reproduce_ag_news.sh, with a stand-in for reproduce.py that notes how it was called."""

import json

import pytest

TABLES = {
    "mnist": ["mnist", "mnist_branches", "mnist_widths", "mnist_augmentation"],
    "ag_news": ["ag_news", "ag_news_augmentation"],
}
ARCHIVES = {"mnist": "MNIST-Transformers.zip", "ag_news": "AG-News-Transformers.zip"}
zoos = pytest.mark.parametrize("zoo", list(TABLES))

REPRODUCE = """
import json, os, pathlib, sys
with open("calls.jsonl", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
sys.exit(json.loads(os.environ.get("STATUSES", "{}")).get(pathlib.Path(sys.argv[1]).stem, 0))
"""


@pytest.fixture
def checkout(scripts):
    (scripts.root / "nfn_transformer").mkdir()
    (scripts.root / "nfn_transformer/reproduce.py").write_text(REPRODUCE)
    return scripts


def add_zoo(scripts, zoo: str) -> None:
    (scripts.root / f"data/{zoo}_transformer").mkdir(parents=True)


def calls(scripts) -> list[list[str]]:
    notes = scripts.root / "calls.jsonl"
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def tables(scripts) -> list[str]:
    return [call[0] for call in calls(scripts)]


def paths(names: list[str]) -> list[str]:
    return [f"scripts/tables/{name}.yaml" for name in names]


@zoos
def test_a_missing_zoo_says_what_to_download_to_where(checkout, zoo):
    (other,) = set(TABLES) - {zoo}
    add_zoo(checkout, other)
    result = checkout.run(f"reproduce_{zoo}.sh")
    places = f"data/{zoo}_transformer, data/{zoo}_transformer.zip, data/{zoo}_transformers.zip"
    hub = "https://huggingface.co/datasets/anonymized-acamedia/Small-Transformer-Zoo/resolve/main"
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"error: no {zoo} zoo: looked for {places}",
        f"Download {hub}/{ARCHIVES[zoo]}",
        f"to data/{zoo}_transformer.zip; this does it: bash scripts/download_zoo.sh {zoo}",
    ]
    assert calls(checkout) == []


@zoos
@pytest.mark.parametrize("place", ["transformer", "transformer.zip", "transformers.zip"])
def test_every_table_in_order_with_the_arguments(checkout, zoo, place):
    (checkout.root / "data").mkdir()
    (checkout.root / f"data/{zoo}_{place}").touch()
    result = checkout.run(f"reproduce_{zoo}.sh", "--cells", "a folder", "--jobs=2")
    assert (result.returncode, result.stderr) == (0, "")
    assert calls(checkout) == [[path, "--cells", "a folder", "--jobs=2"] for path in paths(TABLES[zoo])]


@zoos
@pytest.mark.parametrize("given", [["--data_path", "a zoo.zip"], ["--data_path=a zoo.zip"]])
def test_a_zoo_elsewhere_needs_none_in_data(checkout, zoo, given):
    result = checkout.run(f"reproduce_{zoo}.sh", "--jobs=2", *given)
    assert (result.returncode, result.stderr) == (0, "")
    assert calls(checkout) == [[path, "--jobs=2", *given] for path in paths(TABLES[zoo])]


@zoos
@pytest.mark.parametrize("given", [["--out_dir", "a folder"], ["--out_dir=a folder"]])
def test_one_folder_for_all_tables_is_refused(checkout, zoo, given):
    add_zoo(checkout, zoo)
    result = checkout.run(f"reproduce_{zoo}.sh", "--jobs=2", *given)
    expected = "error: each table has a folder of its own; give --out_dir to nfn_transformer/reproduce.py\n"
    assert (result.returncode, result.stderr) == (2, expected)
    assert calls(checkout) == []


@zoos
def test_failed_cells_let_the_next_table_run(checkout, zoo):
    add_zoo(checkout, zoo)
    result = checkout.run(f"reproduce_{zoo}.sh", STATUSES=json.dumps({zoo: 1}))
    assert result.returncode == 1
    assert tables(checkout) == paths(TABLES[zoo])


@zoos
@pytest.mark.parametrize("status", [2, 130])
def test_an_interrupt_or_a_mistake_ends_it_at_once(checkout, zoo, status):
    add_zoo(checkout, zoo)
    result = checkout.run(f"reproduce_{zoo}.sh", STATUSES=json.dumps({zoo: status}))
    assert result.returncode == status
    assert tables(checkout) == paths(TABLES[zoo][:1])


def test_another_zoo_is_a_mistake(checkout):
    result = checkout.run("reproduce_zoo.sh", "cifar10")
    assert (result.returncode, result.stderr) == (2, "error: expected mnist or ag_news, got 'cifar10'\n")
