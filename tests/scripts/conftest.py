"""A copy of the scripts in a folder of its own, so that no test touches the checkout's data and runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


class ScriptsCopy:
    """A checkout of scripts alone; `programs` holds stand-ins that are found before the machine's programs."""

    def __init__(self, root: Path):
        self.root = root
        self.programs = root / "programs"
        self.programs.mkdir(parents=True)
        shutil.copytree(SCRIPTS, root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "scripts/environment.sh").write_text("")  # the real one would install packages
        self.add_program("python", f'exec "{sys.executable}" "$@"', interpreter="/usr/bin/env bash")

    def add_program(self, name: str, text: str, interpreter: str = sys.executable) -> None:
        path = self.programs / name
        path.write_text(f"#!{interpreter}\n{text}\n")
        path.chmod(0o755)

    def environment(self, **variables) -> dict[str, str]:
        heeded = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "ZOO_URL")
        kept = {name: value for name, value in os.environ.items() if name not in heeded}
        # Neither a proxy nor the user's settings of curl stand between a test and its server.
        own = {"NO_PROXY": "*", "CURL_HOME": str(self.root), "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}
        return {**kept, **own, **variables}

    def command(self, script: str, *arguments) -> list[str]:
        return ["bash", str(self.root / "scripts" / script), *map(str, arguments)]

    def run(self, script: str, *arguments, **variables) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(script, *arguments),
            capture_output=True,
            text=True,
            env=self.environment(**variables),
            cwd=self.root.parent,  # the scripts must find their checkout from anywhere
            timeout=60,
        )


@pytest.fixture
def scripts(tmp_path: Path) -> ScriptsCopy:
    return ScriptsCopy(tmp_path / "checkout")
