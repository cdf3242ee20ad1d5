"""The real LeRobot is there, whole enough for what its users run: driver, recording, data sets, their commands."""

import importlib
from importlib.metadata import version

import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")
MODERN = version("lerobot").startswith("0.6")


@pytest.mark.parametrize(
    "module",
    ["robots.so_follower", "teleoperators.so_leader", "datasets.lerobot_dataset", "policies.factory",
     "scripts.lerobot_record", "scripts.lerobot_edit_dataset", "scripts.lerobot_dataset_viz",
     *(["scripts.lerobot_rollout"] if MODERN else [])],
)  # fmt: skip
def test_what_its_users_run_can_be_imported(module: str) -> None:
    importlib.import_module(f"lerobot.{module}")
