"""The public names: lazy, complete, known to type checkers, and the same list in the module and for checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
    (block,) = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == {name: module for module, names in nfn._PUBLIC.items() for name in names}
