"""The real LeRobot is there, whole enough for what its users run: driver, recording, data sets, their commands."""

import importlib
from importlib.metadata import version

import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")
MODERN = version("lerobot").startswith("0.6")


@pytest.mark.parametrize(
    ("module", "name"),
    [("robots.so_follower", "SO101Follower"), ("teleoperators.so_leader", "SO101Leader"),
     ("datasets.lerobot_dataset", "LeRobotDataset"), ("policies.factory", "make_policy"),
     ("scripts.lerobot_record", "main"), ("scripts.lerobot_edit_dataset", "main"),
     ("scripts.lerobot_dataset_viz", "main"), *([("scripts.lerobot_rollout", "main")] if MODERN else [])],
)  # fmt: skip
def test_what_its_users_run_is_there(module: str, name: str) -> None:
    found = getattr(importlib.import_module(f"lerobot.{module}"), name)
    assert callable(found)
    assert found.__module__.startswith("lerobot.")
