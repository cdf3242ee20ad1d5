"""State-only simulators on a system without OpenGL; cameras say what it lacks."""

import os
import subprocess
import sys

import pytest

from datamodules.envs.libero import graphics
from datamodules.envs.libero.cameras import make
from gipo.common.errors import UserError

# Neither OpenCV nor EGL can be imported, as where their libraries are missing.
BARE = """
import ctypes, logging, os, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("cv2", "mujoco.egl", "OpenGL"):
            raise ImportError(name + ": cannot open shared object file")

def load(name, *args, there=ctypes.CDLL, **options):
    if name in ("libGL.so.1", "libEGL.so.1"):
        raise OSError(name + ": cannot open shared object file")
    return there(name, *args, **options)

sys.meta_path.insert(0, Missing())
ctypes.CDLL = load
import numpy as np
from datamodules.envs.libero.simulator import LiberoSimulator
from datamodules.envs.libero.tasks import find

simulator = LiberoSimulator(find("libero_goal/7")[0])
observation, success = simulator.step(np.zeros(7))
assert np.isfinite(observation).all()
assert "cv2" not in sys.modules
assert "MUJOCO_GL" not in os.environ
assert not [each for each in logging.getLogger("robosuite_logs").handlers if isinstance(each, logging.FileHandler)]
print("stepped")
"""


def test_state_only_tasks_need_none() -> None:
    """Nor the file of robosuite's log, which on a shared machine is another user's."""
    environ = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    ran = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, env=environ)
    assert ran.stdout == "stepped\n", ran.stderr


def test_cameras_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(graphics, "can_draw", lambda: False)
    with pytest.raises(UserError, match="apt-get install libgl1 libegl1"):
        make("libero_goal/7", 1)
