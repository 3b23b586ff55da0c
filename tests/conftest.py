"""Fixtures of all tests: a seeded generator, the bundled zoo, a small cut of it, and a short run on that."""

import csv
import io
import multiprocessing.spawn
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from nfn_transformer.zoo.reading import Zoo, read_zoo

REPOSITORY = Path(__file__).parent.parent
PYTHON = sys.executable

os.environ.setdefault("WANDB_MODE", "disabled")

# A loaded machine is slow, not wrong.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test marked `without_shape_checks` in a process of its own: PyTorch's compiler cannot trace the checks."""
    checked = pyfuncitem.config.getoption("--jaxtyping-packages", default=None)
    if not checked or pyfuncitem.get_closest_marker("without_shape_checks") is None:
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", pyfuncitem.nodeid]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    return True


@pytest.fixture(autouse=True)
def _own_number_of_threads():
    """A resumed run takes over its recorded number of threads; the next test has the process' own again."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def forking_python() -> Iterator[str]:
    """Path of a program that stands in for Python, and forks a process that has imported PyTorch; see quick_python/."""
    if sys.platform != "linux":
        yield sys.executable
        return
    sources = REPOSITORY / "tests/quick_python"
    with tempfile.TemporaryDirectory() as folder:
        server, client = Path(folder) / "server", Path(folder) / "python"
        client.write_text(f"#!{sys.executable} -IS\n{(sources / 'client.py').read_text()}")
        client.chmod(0o755)
        words = [sys.executable, str(sources / "server.py"), str(server)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "listening\n"
            yield str(client)
            process.terminate()


@pytest.fixture(scope="module")
def quick_python(forking_python: str) -> Iterator[None]:
    """Processes that a module's tests start, and those that these start, take milliseconds to import PyTorch."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "executable", forking_python)
        patched.setattr(multiprocessing.spawn, "_python_exe", forking_python)
        yield


@pytest.fixture
def plain_python(monkeypatch) -> None:
    """Python itself, for what asks a process that it starts for its number: the stand-in has another."""
    monkeypatch.setattr(sys, "executable", PYTHON)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20260)


@pytest.fixture(scope="session")
def bundled_zoo() -> Path:
    return REPOSITORY / "data/digits_transformers.zip"


@pytest.fixture(scope="session")
def small_zoo(bundled_zoo: Path, tmp_path_factory) -> Path:
    """The first 60 networks of the bundled zoo, as a folder."""
    folder = tmp_path_factory.mktemp("small_zoo")
    with zipfile.ZipFile(bundled_zoo) as archive:
        (table,) = [name for name in archive.namelist() if name.endswith("metadata/digits.csv")]
        rows = list(csv.reader(io.StringIO(archive.read(table).decode())))
        header, kept = rows[0], rows[1:61]
        (folder / "metadata").mkdir()
        (folder / "digits").mkdir()
        with open(folder / "metadata/digits.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *kept])
        top = table.removesuffix("metadata/digits.csv")
        for row in kept:
            name = row[header.index("ckpt_file")]
            (folder / name).write_bytes(archive.read(top + name))
    return folder


@pytest.fixture(scope="session")
def small(small_zoo: Path) -> Zoo:
    """The small cut, read."""
    return read_zoo(small_zoo, "digits", progress=False)
