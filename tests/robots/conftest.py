"""Fixtures of the robot tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from robots.log import LogWriter, Session
from tests.artifacts import GIVEN, artifacts
from tests.robots.builders import EPISODE, step_row


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sealed log of `count` rows."""

    def write(count: int, name: str = "a.mcap", **options: int) -> Path:
        path = tmp_path / name
        writer = LogWriter(path, Session('{"name": "fake"}', {"0" * 64: "{}"}), capacity=2 * count + 10)
        for index in range(count):
            if index % EPISODE == 0:
                writer.event("episode_start", episode=index // EPISODE, data={"policy_id": "0" * 64})
            writer.step(step_row(index, **options))
            if index % EPISODE == EPISODE - 1:
                final = step_row(index + 1, **options).observation.tolist()
                writer.event("episode_end", "steps", index // EPISODE, data={"final_observation": final})
        writer.close()
        return path

    return write


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts for the simulated arm: two versions of a token policy, a gaussian one, and one without names."""
    folder = artifacts("robots", tmp_path_factory.mktemp("policies"))
    return {name: folder / f"{name}.onnx" for name in ("token", "newer", "gaussian", "numbered")}


@pytest.fixture(scope="session")
def session(policies: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three episodes of the simulated arm, with a shadow policy."""
    if GIVEN:
        (path,) = (GIVEN / "robots").glob("*.mcap")
        return path
    pytest.importorskip("metaworld", reason="the arm is simulated with MetaWorld")
    from tests.robots.artifacts import write_session

    return write_session(policies["token"].parent, tmp_path_factory.mktemp("logs"))
