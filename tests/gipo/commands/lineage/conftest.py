"""A chain of two rounds, made once; tests that change it take a copy."""

import shutil
from pathlib import Path

import pytest

from tests.lineage import make_chain

Chain = tuple[Path, dict[str, str]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    return folder, make_chain(folder)


@pytest.fixture
def chain(made: Chain, tmp_path: Path) -> Chain:
    """A copy of the folder, and the ids by name."""
    folder, ids = made
    return Path(shutil.copytree(folder, tmp_path / "chain")), ids
