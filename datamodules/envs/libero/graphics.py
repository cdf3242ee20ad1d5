"""robosuite imports OpenCV and OpenGL even where nothing is drawn: what state-only simulators do without."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from gipo.common.errors import UserError

PACKAGES = "libgl1 libegl1 libegl-mesa0 libgl1-mesa-dri"


def can_draw() -> bool:
    """Whether the system has what draws without a screen: a GPU's driver or Mesa."""
    try:
        for library in ("libGL.so.1", "libEGL.so.1"):
            ctypes.CDLL(library)
    except OSError:
        return False
    return True


def refuse_none() -> None:
    """Choose EGL, unless `MUJOCO_GL` says otherwise, for this process and those it starts.

    Raises:
        UserError: where EGL cannot be had, with the packages that mend it.
    """
    if os.environ.setdefault("MUJOCO_GL", "egl") == "egl" and not can_draw():
        raise UserError(
            "LIBERO's cameras draw with OpenGL (libGL.so.1, libEGL.so.1), which this system does not have: "
            f"apt-get install {PACKAGES}, or use the state-only task"
        )


@contextmanager
def not_needed() -> Iterator[None]:
    """A context in which robosuite can be imported also where nothing can be drawn."""
    if can_draw():
        yield
        return
    empty, kind = ModuleType("cv2"), os.environ.get("MUJOCO_GL")
    sys.modules.setdefault("cv2", empty)  # for its windows only
    os.environ["MUJOCO_GL"] = "glx"  # the one kind whose library comes with its wheel
    try:
        yield
    finally:
        if sys.modules["cv2"] is empty:
            del sys.modules["cv2"]
        del os.environ["MUJOCO_GL"]
        if kind is not None:
            os.environ["MUJOCO_GL"] = kind
