"""Fixtures of small zoos; a user's cache folder is a test's own."""

import pytest
from small_zoo import SmallZoo


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    folder = tmp_path / "user cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def zoo(tmp_path) -> SmallZoo:
    """40 sound runs of epoch 75: two faulty ones more are still within the allowed share."""
    return SmallZoo(tmp_path / "zoo", runs=40)
