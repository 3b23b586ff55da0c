"""Promises of pyproject.toml: ranges that hold the pinned versions, light requirements, files of the package."""

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import nfn_transformer

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def parsed(lines: list[str]) -> dict[str, Requirement]:
    return {Requirement(line).name: Requirement(line) for line in lines}


def test_all_tested_versions_are_pinned_and_in_range():
    pins = parsed((ROOT / "requirement.txt").read_text().split())
    needed = parsed(PROJECT["project"]["dependencies"])
    for name, extra in EXTRAS.items():
        needed |= parsed(extra) if name != "all" else {}
    assert set(pins) == set(needed)
    for name, pin in pins.items():
        (version,) = (each.version for each in pin.specifier if each.operator == "==")
        assert needed[name].specifier.contains(version)


def test_18_the_build_reads_no_file_in_the_locales_encoding():
    """setuptools reads pyproject.toml and what it names as UTF-8, whatever the locale."""
    shim = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
    assert [ast.unparse(line) for line in shim[1:]] == ["from setuptools import setup", "setup()"]


def test_other_versions_of_pytorch_are_left_alone():
    (torch,) = (Requirement(line) for line in PROJECT["project"]["dependencies"] if line.startswith("torch"))
    assert all(torch.specifier.contains(version) for version in ("2.6.0", "2.9.0+cu128", "2.11.0", "3.0"))


def test_all_is_every_extra():
    (everything,) = (Requirement(line) for line in EXTRAS["all"])
    assert everything.extras == set(EXTRAS) - {"all"}


def test_the_package_holds_all_bundled_files():
    folder = ROOT / "nfn_transformer/bundled"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["nfn_transformer.bundled"]
    packed = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    expected = {
        f"scripts/{kind}/{path.name}"
        for kind in ("tables", "zoos")
        for path in (ROOT / "scripts" / kind).glob("*.yaml")
    }
    assert packed == {"data/digits_transformers.zip", "data/digit_sirens.zip", "data/documentation.txt", *expected}
    assert all((folder / name).is_file() for name in packed)


def test_the_changelog_begins_with_this_version():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line[:3] == "## "]
    assert headings[0] == f"## {nfn_transformer.__version__}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_scripts_keep_their_line_ends():
    names = [".ci/run", "scripts/test.sh", "scripts/tables/smoke.yaml", "nfn_transformer/main.py"]
    done = subprocess.run(["git", "check-attr", "eol", *names], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name}: eol: lf" for name in names]
