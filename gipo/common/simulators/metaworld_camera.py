"""MetaWorld seen by one of its cameras, drawn without a screen: what training and the simulated robot share.

MuJoCo is imported with the first camera. Nothing is shaded that costs much and shows little: no shadows, reflections,
sky or smoothed edges, which is a picture in 8 ms of one core where there is no GPU.
"""

import atexit
import importlib
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gipo.common.errors import UserError
from gipo.common.faults import described
from gipo.common.simulators.metaworld import OBSERVATIONS, interface
from gipo.common.simulators.toy import VisualGap, tinted

PREFIX = "camera:"  # of a task's name where a policy is to see it
CAMERA, SIZE = "topview", 84  # unless said otherwise: which of MetaWorld's cameras, and pixels of height and width
STATE = 4  # what the arm knows of itself: the first numbers of MetaWorld's observation
PACKAGES = "libgl1 libegl1 libegl-mesa0 libgl1-mesa-dri"
OBJECTS = 1000  # that a scene has room for
PLAIN = ("mjRND_SHADOW", "mjRND_REFLECTION", "mjRND_SKYBOX")  # what is not drawn
NO_GAP = VisualGap()


def seen_interface() -> dict[str, Any]:
    """Names, units and rate (Hz) of a policy that sees: its state is the hand and the gripper alone."""
    names, units = list(OBSERVATIONS)[:STATE], list(OBSERVATIONS.values())[:STATE]
    return interface() | {"observation_names": names, "observation_units": units}


def seen_task(name: str) -> tuple[str, tuple[str, ...]]:
    """MetaWorld's name of a task and the cameras that show it: `camera:reach-v3`, `camera:topview+gripperPOV:reach-v3`.

    Without cameras it is `CAMERA`.
    """
    cameras, colon, task = name.removeprefix(PREFIX).rpartition(":")
    return task, tuple(cameras.split("+")) if colon else (CAMERA,)


def instruction_of(task: str) -> str:
    """The words for a task: its name in words, such as `button press topdown`."""
    return seen_task(task)[0].rsplit("-v", 1)[0].replace("-", " ")


class Camera:
    """One of MetaWorld's cameras over simulators that share their meshes, whose picture it turns the right way up.

    Args:
        model: of one of these simulators; its camera is moved by the gap.
        name: of the camera, such as `topview`.
        size: pixels of height and width.
        gap: between this camera and that of training; its shifts are how far the camera is moved in its own plane,
            metres.

    Raises:
        UserError: when the model has no such camera, or there is nothing to draw with.
    """

    def __init__(self, model: Any, name: str = CAMERA, size: int = SIZE, gap: VisualGap = NO_GAP):
        import mujoco

        known = [model.camera(index).name for index in range(model.ncam)]
        if name not in known:
            raise UserError(f"MetaWorld has no camera {name!r}; there are {', '.join(known)}")
        self._mujoco, self._gap = mujoco, gap
        across, up, _ = _axes(model, name)
        self._turned = up[2] < 0  # as MetaWorld mounts those in the corners
        shift = np.array((-gap.shift_x, gap.shift_y)) * (-1 if self._turned else 1)
        model.cam_pos[model.camera(name).id] += shift[0] * across + shift[1] * up
        model.vis.quality.offsamples = 0
        self._gl = _context(size)
        with _current(self._gl):
            self._drawn = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawn)
        self._scene, self._options = mujoco.MjvScene(model, OBJECTS), mujoco.MjvOption()
        for flag in PLAIN:
            self._scene.flags[getattr(mujoco.mjtRndFlag, flag)] = False
        self._view = mujoco.MjvCamera()
        self._view.type, self._view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
        self._frame, self._pixels = mujoco.MjrRect(0, 0, size, size), np.empty((size, size, 3), np.uint8)
        self.close = weakref.finalize(self, _free, self._gl, self._drawn)
        self.close.atexit = False
        atexit.register(self.close)  # before MuJoCo ends the display, which it has asked for already

    def picture(self, model: Any, data: Any) -> np.ndarray:
        """Draw a simulator as it is now, [size, size, 3] uint8."""
        mujoco, every = self._mujoco, self._mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, None, self._view, every, self._scene)
        with _current(self._gl):
            mujoco.mjr_render(self._frame, self._scene, self._drawn)
            mujoco.mjr_readPixels(self._pixels, None, self._frame, self._drawn)
        upright = self._pixels[:, ::-1] if self._turned else self._pixels[::-1]  # OpenGL's first row is the lowest
        return tinted(upright, self._gap)


def _axes(model: Any, name: str) -> np.ndarray:
    """The directions across, up and back of a camera that nothing moves, [3, 3]."""
    import mujoco

    turned = np.empty(9)
    mujoco.mju_quat2Mat(turned, model.camera(name).quat)
    return turned.reshape(3, 3).T


def refuse_no_graphics() -> None:
    """Raise a UserError where there is nothing to draw with, before much else is made."""
    _context(1).free()


def _context(size: int) -> Any:
    """What draws off screen, by EGL."""
    # Mesa's threads do not survive a fork, nor is a lock given back that one of them held: a worker of a process that
    # had drawn before waited for ever. They are those that draw, and the one that stores compiled shaders.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    os.environ.setdefault("MESA_SHADER_CACHE_DISABLE", "true")
    try:
        return importlib.import_module("mujoco.egl").GLContext(size, size)
    except Exception as error:  # PyOpenGL raises whatever it stumbles over where a library is missing
        raise UserError(
            f"MetaWorld's cameras draw with OpenGL (EGL), which this system does not have ({described(error)}): "
            f"apt-get install {PACKAGES}, or take the task without {PREFIX}, which needs no picture"
        ) from error


@contextmanager
def _current(gl: Any) -> Iterator[None]:
    """Draw with a context here, and leave it to whatever thread comes next."""
    from mujoco.egl import EGL, EGL_DISPLAY

    gl.make_current()
    try:
        yield
    finally:
        EGL.eglMakeCurrent(EGL_DISPLAY, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, EGL.EGL_NO_CONTEXT)


def _free(gl: Any, drawn: Any) -> None:
    with _current(gl):
        drawn.free()
    gl.free()
