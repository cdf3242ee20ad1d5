"""MetaWorld's Sawyer: what its numbers mean, for training's records and the simulated robot, and how both set it up.

Source: `metaworld.sawyer_xyz_env.SawyerXYZEnv`, of which nothing is imported; tests compare names, bounds and rate.
"""

from functools import partial
from importlib.metadata import version
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

RATE_HZ = 80.0  # five MuJoCo steps of 2.5 ms an action
ACTION_LOW, ACTION_HIGH = -1.0, 1.0  # of every action

_AXES = ("x", "y", "z")
# The hand, the gripper opening, and two slots of object position and quaternion, zero where a task has fewer objects.
_FRAME = {f"hand_{axis}": "m" for axis in _AXES} | {"gripper_opening": "1"}
for _slot in ("object_1", "object_2"):
    _FRAME |= {f"{_slot}_{axis}": "m" for axis in _AXES} | {f"{_slot}_q{index}": "1" for index in range(4)}

# Name → unit of the 39 observations: the current frame, the previous one, the goal.
OBSERVATIONS = {
    **_FRAME,
    **{f"previous_{name}": unit for name, unit in _FRAME.items()},
    **{f"goal_{axis}": "m" for axis in _AXES},
}
# Name → unit of the 4 actions: the hand's move, and the effort that closes the gripper.
ACTIONS = {**{f"hand_d{axis}": "cm" for axis in _AXES}, "gripper_effort": "1"}


def interface() -> dict[str, Any]:
    """Names, units and control rate (Hz) as a checkpoint and an artifact's manifest record them."""
    return {
        "observation_names": list(OBSERVATIONS),
        "observation_units": list(OBSERVATIONS.values()),
        "action_names": list(ACTIONS),
        "action_units": list(ACTIONS.values()),
        "control_rate_hz": RATE_HZ,
    }


def show_goal(simulator: Any) -> None:
    """Set up a task's simulator, not yet reset: the goal is seen, and drawn anew from `np_random` at every reset."""
    # What MetaWorld's own goal-observable classes set, but for the goal, which they draw once.
    simulator.__dict__.pop("sawyer_observation_space", None)
    simulator._partially_observable = False
    simulator._freeze_rand_vec = False
    simulator.seeded_rand_vec = True
    simulator._set_task_called = True


def hasten(simulator: Any) -> None:
    """Have a task's simulator say the same in less time: what MuJoCo knows is not checked, nor asked for in pieces."""
    _trust_rotations(simulator)
    simulator.touching_object = MethodType(_touching, simulator)


def _touching(simulator: Any, geom: int) -> bool:
    """Whether both fingers press on a geom, as `SawyerXYZEnv.touching_object` tells it.

    That one takes contacts from MuJoCo one by one, and the end of them is a C++ exception, which takes the longer the
    more libraries a process has: with torch, more than half of a step.
    """
    contacts, forces = simulator.data.contact, simulator.data.efc_force
    with_geom = (contacts.geom == geom).any(1)

    def force(pad: str) -> float:
        pressing = with_geom & (contacts.geom == simulator.data.geom(pad).id).any(1)
        return float(sum(forces[contacts.efc_address[pressing]]))

    return force("leftpad_geom") > 0 and force("rightpad_geom") > 0


def _trust_rotations(simulator: Any) -> None:
    """Take MuJoCo's matrices for rotations; checking that they are is a quarter of a step."""
    method = type(simulator)._get_quat_objects
    if (rotation := method.__globals__.get("Rotation")) is None:
        return  # the task has its own way of telling how objects are turned
    from_matrix = rotation.from_matrix
    if tuple(map(int, version("scipy").split(".")[:2])) >= (1, 17):
        from_matrix = partial(from_matrix, assume_valid=True)
    # A copy of the method that finds this under the name of scipy's.
    found = method.__globals__ | {"Rotation": SimpleNamespace(from_matrix=from_matrix)}
    trusting = FunctionType(method.__code__, found, closure=method.__closure__)
    simulator._get_quat_objects = MethodType(trusting, simulator)
