"""The sweeps: each value is one that main.py takes, and none is chosen by the test split."""

from pathlib import Path

import pytest
import yaml

from nfn_transformer.main import build_parser
from nfn_transformer.models.config import ModelConfig

SWEEPS = sorted((Path(__file__).parents[2] / "scripts/sweeps").glob("*.yaml"))
sweeps = pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)


def values(parameter: dict) -> list:
    """Every value that a parameter lists, and both ends where it is a range."""
    known = {"value", "values", "distribution", "min", "max"}
    assert set(parameter) <= known, f"unknown keys in {parameter}"
    single = [parameter[name] for name in ("value", "min", "max") if name in parameter]
    return single + parameter.get("values", [])


def parse(given: dict):
    """The flags as wandb's agent passes them."""
    return build_parser().parse_args([f"--{name}={value}" for name, value in given.items()])


def test_there_is_one_for_each_encoder_and_zoo():
    modes = ("transformer_nfn", "mlp", "statnn")
    assert {path.stem for path in SWEEPS} == {f"{mode}_{zoo}" for mode in modes for zoo in ("mnist", "ag_news")} | {
        "seeds_mnist"
    }


@sweeps
def test_its_values_are_flags_of_main(path):
    parameters = yaml.safe_load(path.read_text())["parameters"]
    for name, parameter in parameters.items():
        assert values(parameter), name
        for value in values(parameter):
            parsed = getattr(parse({name: value}), name)
            assert (",".join(map(str, parsed)) if isinstance(parsed, tuple) else parsed) == value


@sweeps
def test_it_is_one_that_wandb_takes(path):
    sweep = yaml.safe_load(path.read_text())
    assert sweep["program"] == "nfn_transformer/main.py"
    assert sweep["command"] == ["${env}", "python", "${program}", "${args}"]
    assert sweep["metric"] == {"name": "best_validation_tau", "goal": "maximize"}
    assert sweep["project"] == build_parser().get_default("project")  # where single runs go
    for name, parameter in sweep["parameters"].items():
        if "min" in parameter:
            assert parameter["distribution"] == "log_uniform_values", name
            assert 0 < parameter["min"] < parameter["max"], name


@sweeps
def test_its_header_says_how_it_is_started(path):
    expected = f"# Started by: wandb sweep scripts/sweeps/{path.name}, then: bash scripts/run_sweep.sh SWEEP_ID 1 1"
    assert expected in path.read_text().splitlines()[:3]


@sweeps
def test_it_reads_the_zoo_of_its_name(path):
    parameters = yaml.safe_load(path.read_text())["parameters"]
    dataset = parameters["dataset"]["value"]
    assert path.stem.endswith(dataset)
    # The published AG-News networks have no embedding to read.
    flags = parse({name: values(parameter)[0] for name, parameter in parameters.items()})
    assert ModelConfig.from_flags(vars(flags)).emb_mode == ("no" if dataset == "ag_news" else "mlp")


def test_the_seeds_are_those_of_the_published_setting():
    (path,) = [path for path in SWEEPS if path.stem == "seeds_mnist"]
    sweep = yaml.safe_load(path.read_text())
    parameters = sweep["parameters"]
    assert sweep["method"] == "grid"
    assert parameters.pop("seed")["values"] == [1, 2, 3, 4, 5]
    assert parameters.pop("cut_off")["values"] == [0, 0.2, 0.4, 0.6, 0.8]
    published = "--enc_mode inv --classifier_nfn_channels 10,10 --transformers_nfn_channels 10 --dataset mnist"
    given = {name: parameter["value"] for name, parameter in parameters.items()}
    assert parse(given) == build_parser().parse_args(published.split())
