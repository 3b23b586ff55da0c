"""The header of each script says what it needs beyond any bash."""

import re
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
NEEDS = {
    "download_zoo": ["bash 4 or newer", "curl", "sha256sum", "python3"],
    "released_zoos": ["bash 4 or newer"],
    "reproduce_ag_news": ["bash 4 or newer"],
    "reproduce_mnist": ["bash 4 or newer"],
    "reproduce_zoo": ["bash 4 or newer"],
    "run_sweep": ["bash 4.4 or newer", "env --default-signal (coreutils 8.31 or newer)", "nvidia-smi"],
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_header_says_what_the_script_needs(name):
    lines = (SCRIPTS / f"{name}.sh").read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    (needs,) = re.findall(r"Needs (.*)", " ".join(line.removeprefix("# ") for line in lines[:end]))
    assert [need for need in NEEDS[name] if need not in needs] == []
