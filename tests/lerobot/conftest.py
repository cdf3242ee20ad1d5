from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lerobot.arm import Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Desk"]:
    """An arm on its port, and its files in the working folder."""
    from tests.lerobot.arm import Desk

    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    yield desk
    desk.port.unplug()


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that may drive the arm."""
    from tests.lerobot.arm import make_artifact

    return make_artifact(tmp_path_factory.mktemp("policy") / "policy.onnx")
