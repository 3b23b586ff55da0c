"""What all tests share: a seeded generator, and the bundled zoo's path."""

from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20260)


@pytest.fixture(scope="session")
def bundled_zoo() -> Path:
    return REPOSITORY / "data/digits_transformers.zip"
