"""Fixtures of the robot tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from robots.log import LogWriter, Session
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
    pytest.importorskip("torch", reason="artifacts are exported with torch")
    from tests.robots.artifacts import changed, make_artifact, without_names

    folder = tmp_path_factory.mktemp("policies")
    token = make_artifact(folder / "token.onnx")
    return {
        "token": token,
        "newer": changed(token, folder / "newer.onnx", policy_version=8),
        "gaussian": make_artifact(folder / "gaussian.onnx", "gaussian", seed=1),
        "numbered": without_names(token, folder / "numbered.onnx"),
    }


@pytest.fixture(scope="session")
def session(policies: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three episodes of the simulated arm, with a shadow policy."""
    from robots.cli import main

    folder = tmp_path_factory.mktemp("logs")
    command = ["run", "--policy", str(policies["token"]), "--shadow", str(policies["newer"]), "--log", str(folder)]
    assert main([*command, "--episodes", "3", "--steps", "60", "--speed", "20"]) == 0
    (path,) = folder.glob("*.mcap")
    return path
