"""Fixtures of the robot tests."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helper modules beside this file, in every import mode

from robots_builders import EPISODE, step_row

from robots.log import LogWriter, Session


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
