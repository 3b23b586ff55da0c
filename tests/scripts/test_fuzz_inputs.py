"""Fuzzing in short: a changed file ends a command by success or a short message, and any other end is seen."""

import os
import signal
import time

import fuzz_inputs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    yield fuzz_inputs.Sound(folder)
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(fuzz_inputs.CASES)), st.integers(0, 2**32))
def test_changed_files_end_in_success_or_a_short_message(sound, kind, seed):
    assert fuzz_inputs.failure(sound, kind, seed) is None


def wait(*given):
    time.sleep(60)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda *given: None, None),
        (lambda *given: 1 / 0, "ZeroDivisionError"),
        (lambda *given: bytes(2**33), "MemoryError"),
        (lambda *given: os.kill(os.getpid(), signal.SIGKILL), "ends with status -9"),
        (wait, "takes more than 1 s"),
        (lambda *given: print("\x1b[2J"), "prints control characters"),
        (lambda *given: print("x\n" * 1000), "characters in 1001 lines"),
    ],
    ids=["success", "traceback", "memory", "crash", "time", "control", "lines"],
)
def test_a_wrong_end_is_seen(sound, monkeypatch, end, message):
    monkeypatch.setattr(fuzz_inputs, "MOST_SECONDS", 3 if end is not wait else 1)
    monkeypatch.setitem(fuzz_inputs.CASES, "tree", end)
    problem = fuzz_inputs.failure(sound, "tree", 1)
    assert problem is None if message is None else message in problem
