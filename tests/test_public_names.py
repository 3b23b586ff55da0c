"""The public names: lazy, complete, known to type checkers, and the same list in the module and for checkers."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nfn_transformer as nfn

SOURCE = Path(nfn.__file__)


def test_importing_the_package_imports_neither_torch_nor_numpy():
    program = "import nfn_transformer, sys; print({'torch', 'numpy', 'tqdm'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=SOURCE.parents[1])
    assert run.stdout == "set()\n", run.stderr


def test_every_name_is_there_and_documented():
    for name in nfn.__all__:
        value = getattr(nfn, name)
        if callable(value):
            assert value.__doc__, name
            assert value.__module__ == nfn._MODULE_OF[name], name
    assert set(nfn.__all__) <= set(dir(nfn))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nfn.nothing  # noqa: B018


def test_type_checkers_see_the_same_names():
    block = next(node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == {name: module for module, names in nfn._PUBLIC.items() for name in names}


# What scripts use besides: the command line's pieces, and the parts of training and generation that they take time of.
_INNER = {
    "cli.command_line": "types of arguments, and how a command ends",
    "families.registry": "a zoo of random networks of any family is made in memory",
    "features.layered_graph": "a graph encoder of dense edges has all but the edges of ours",
    "figures": "the way to write a picture",
    "generation": "populations are timed part by part",
    "grids.grid_file": "rows of a grid file",
    "layers.bilinear": "the same as of features.layered_graph",
    "layers.layered_graph_layers": "the same",
    "layers.polynomial.TermTable": "the published layers are built term by term",
    "models.branch.EquivariantEncoder": "the published way replaces the encoder of a predictor",
    "models.consensus.Consensus": "pictures are timed without votes and features",
    "models.encoders.graph": "the same as of features.layered_graph",
    "models.network_graph_encoder": "the same",
    "models.predictor.SinglePredictor": "the published way replaces the encoder of a predictor",
    "resources.limit_threads": "a benchmark takes as many threads as a command does",
    "training": "a step, an epoch and their memory are measured alone",
    "trees": "memory of a fit without its imports",
    "zoo.faults": "a zoo of random networks is made in memory",
    "zoo.metadata": "the same",
    "zoo.published_split": "its files are changed at random",
    "zoo.sources": "the bound of files is lowered, so that small ones count as large",
    "zoo.user_zoo": "the same as of zoo.published_split",
}


@pytest.mark.parametrize(
    "folder", ["scripts", *(f"tests/{name}" for name in ("layers", "groups", "weights", "features"))]
)
def test_public_names_are_used_where_there_are_some(folder):
    inner = set()
    for path in sorted((SOURCE.parents[1] / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nfn_transformer."):
                for alias in node.names:
                    assert alias.name not in nfn.__all__, f"{path.name}: from nfn_transformer import {alias.name}"
                    inner.add(f"{node.module}.{alias.name}".removeprefix("nfn_transformer."))
    if folder == "scripts":
        assert sorted(name for name in inner if not any(f"{name}.".startswith(f"{known}.") for known in _INNER)) == []
        assert [known for known in _INNER if not any(f"{name}.".startswith(f"{known}.") for name in inner)] == []


def _example(documented: object) -> str:
    """Return the code in a docstring; empty without any."""
    return "\n".join(re.findall(r"```python\n(.*?)```", inspect.getdoc(documented) or "", re.DOTALL))


EXAMPLES = {name: _example(getattr(nfn, name)) for name in nfn.__all__ if callable(getattr(nfn, name))}


@pytest.mark.parametrize("name", [name for name, code in EXAMPLES.items() if code and "zoo = " not in code])
def test_examples_of_docstrings_run(name, small):
    state = {key: tensor[0] for key, tensor in nfn.state_dict_from_weights(small.weights(torch.arange(1))).items()}
    if name not in ("FittedPredictor", "load_predictor", "resume"):  # they need a run; see test_fitting.py
        exec(EXAMPLES[name], {"nfn": nfn, "torch": torch, "zoo": small, "state": state})


def test_the_names_that_users_begin_with_have_examples():
    first = "read_zoo fit resume load_predictor FittedPredictor equivariance_error BlockElement EquivariantBlockLayer"
    for name in first.split():
        assert EXAMPLES[name], name
