"""Nothing is imported once a robot is connected: an import within a tick takes longer than the watchdog allows."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROBOT = """
import json, sys, time
import numpy as np
from robots.base import Observation
from robots.drivers.sim import make_spec

class Plain:
    def __init__(self, policy, noted: str):
        self.spec, self.noted, self.commands = make_spec().named_as(policy), noted, 0

    def connect(self):
        self.known = set(sys.modules)

    def prepare(self, seed): ...

    def observe(self):
        return Observation(np.zeros(39), time_ns=time.monotonic_ns())

    def act(self, action):
        self.commands += 1
        if self.commands == 2:
            with open(self.noted, "w") as file:
                json.dump(sorted(set(sys.modules) - self.known), file)
        return action

    def stop(self, reason): ...
    def close(self): ...

def robot(manifest, noted):
    return Plain(manifest, noted)
"""


def test_no_module_is_imported_from_connect_to_the_second_tick(tmp_path: Path, policies: dict[str, Path]) -> None:
    (tmp_path / "plain_robot.py").write_text(ROBOT)
    noted = tmp_path / "noted.json"
    command = [sys.executable, "-m", "robots.cli", "run", "--policy", policies["token"], "--robot", "plain_robot:robot",
               "--set", f"noted={noted}", "--episodes", "1", "--steps", "3", "--log", tmp_path / "logs",
               "--deadline", "80", "--max-age", "80"]  # fmt: skip
    place = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": place}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(noted.read_text()) == []
