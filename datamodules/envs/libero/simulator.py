"""One LIBERO task in MuJoCo without a renderer: what an episode begins from, how a step goes, what is observed."""

import contextlib
import copy
import logging
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet
from xml.etree import ElementTree

import mujoco
import numpy as np

from datamodules.envs.interface import named
from datamodules.envs.libero import graphics
from datamodules.envs.libero.tasks import CONTROL_RATE_HZ, LiberoTask

# Name → unit of the actions: 1 asks for that much; the gripper closes above 0.
ACTIONS = {f"hand_d{axis}": "5 cm" for axis in "xyz"} | {f"hand_turn_{axis}": "0.5 rad" for axis in "xyz"}
ACTIONS["gripper"] = "1"
ACTION_SIZE = len(ACTIONS)
SETTLE = 10  # steps in which objects come to rest before an episode begins, as TorchRL's LiberoEnv does
# Millimetres and milliradians: standardising would blow up the jitter, some 1e-5, of what lies still.
DECIMALS = 3
REST = np.array([0, 0, 0, 0, 0, 0, -1.0])  # no motion, gripper open


class LiberoSimulator:
    """A simulator of one task: state observations [O] f32, actions [7] in [−1, 1], no camera.

    A step is robosuite's at 20 Hz with its operational-space controller, and the same physics up to the last bits: of
    the three times that robosuite computes forward dynamics in each of the 25 substeps, one is enough. Compiling the
    model takes seconds: where this process has another simulator of the task, its model is copied.
    """

    def __init__(self, task: LiberoTask):
        self.task = task
        twin = next((other for other in _living if other.task == task), None)
        self.domain = _domain(task, None if twin is None else twin.model)
        self.states: np.ndarray = task.init_states() if twin is None else twin.states
        self._substeps = int(self.domain.control_timestep / self.domain.model_timestep)
        self.objects = list(self.domain.objects_dict)
        self.fixtures = [name for name in self.domain.fixtures_dict if name in self.domain.obj_body_id]
        self._bodies = [self.domain.obj_body_id[name] for name in (*self.objects, *self.fixtures)]
        # Of drawers, doors and knobs.
        joints = [joint for fixture in self.fixtures for joint in self.domain.fixtures_dict[fixture].joints or ()]
        self._joints = [self.model.joint(joint).qposadr[0] for joint in joints]
        robot = self.domain.robots[0]
        self._hand, self._fingers = robot.eef_site_id, list(robot._ref_gripper_joint_pos_indexes)
        _living.add(self)

    @property
    def model(self) -> mujoco.MjModel:
        """MuJoCo's model of the task, in which fixtures are placed at every reset."""
        return self.domain.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        """MuJoCo's state of the simulation."""
        return self.domain.sim.data._data

    def reset(self, init_state: int, generator: np.random.Generator) -> np.ndarray:
        """Begin at one of the task's initial states; `generator` places what they leave open, the fixtures.

        Returns:
            The first observation [O], after objects have come to rest.
        """
        with _numpy_seeded(int(generator.integers(2**32))):
            self.domain.reset()
        release_gripper(self.domain)
        self.observe(self.states[init_state])
        # The controller must not compute again what `step` has computed.
        sim = self.domain.sim
        self.domain.robots[0].controller.sim = SimpleNamespace(model=sim.model, data=sim.data, forward=lambda: None)
        for _ in range(SETTLE):
            self._control(REST)
        return self.observation()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """The observation [O] after `action` [7], and whether the task is solved now."""
        self._control(action)
        return self.observation(), bool(self.domain._check_success())

    def observe(self, state: np.ndarray) -> np.ndarray:
        """The observation [O] in a state [S] of the simulator, which is in it from now on."""
        self.domain.sim.set_state_from_flattened(state)
        self.domain.sim.forward()
        return self.observation()

    def observation(self) -> np.ndarray:
        """The observation [O] f32 of the state that the simulator is in; `units` names its numbers."""
        data = self.data
        hand = data.site_xpos[self._hand]
        positions = data.xpos[self._bodies]
        parts = (
            hand,
            _axes(data.site_xmat[self._hand]),
            data.qpos[self._fingers],
            positions,
            positions - hand,
            _axes(data.xmat[self._bodies[: len(self.objects)]]),
            data.qpos[self._joints],
        )  # `names` counts the same
        return np.concatenate([part.ravel() for part in parts]).round(DECIMALS).astype(np.float32)

    def close(self) -> None:
        """Let go of the simulator; its compiled model is no longer copied by others."""
        _living.discard(self)
        self.domain.close()

    def _control(self, action: np.ndarray) -> None:
        for substep in range(self._substeps):
            mujoco.mj_step1(self.model, self.data)
            self.domain._pre_action(action, policy_step=substep == 0)
            mujoco.mj_step2(self.model, self.data)


_living: WeakSet[LiberoSimulator] = WeakSet()  # in this process


@cache
def units(task: LiberoTask) -> dict[str, str]:
    """Name and unit of each of the O numbers of an observation, from the description of a task alone.

    Of an orientation the x and y axes are given, in world coordinates.
    """
    class_of, parse, _ = _libero()
    problem = parse(task.bddl_file)
    objects = [name for names in problem["objects"].values() for name in names]
    fixtures = {
        name: class_of(kind)(name=name, joints=None)
        for kind, names in problem["fixtures"].items()
        if not kind.endswith(("table", "floor"))
        for name in names
    }
    axes = [f"{axis}_{row}" for axis in "xy" for row in "xyz"]
    found = {f"hand_{axis}": "m" for axis in "xyz"} | {f"hand_axis_{axis}": "1" for axis in axes}
    found |= {"finger_1": "m", "finger_2": "m"}
    found |= {f"{thing}_{axis}": "m" for thing in (*objects, *fixtures) for axis in "xyz"}
    found |= {f"{thing}_from_hand_{axis}": "m" for thing in (*objects, *fixtures) for axis in "xyz"}
    found |= {f"{thing}_axis_{axis}": "1" for thing in objects for axis in axes}
    joints = (joint for fixture in fixtures.values() for joint in fixture.worldbody.iter("joint"))
    return found | {joint.get("name"): "m" if joint.get("type") == "slide" else "rad" for joint in joints}


def units_of(tasks: Sequence[LiberoTask]) -> dict[str, str]:
    """Name → unit of what a task observes; of several, the largest one's count of numbers and a one-hot of the task."""
    if len(tasks) == 1:
        return units(tasks[0])
    largest = max(len(units(task)) for task in tasks)
    return {f"state_{index}": "1" for index in range(largest)} | {f"is_{task.name}": "1" for task in tasks}


def interface(tasks: Sequence[LiberoTask]) -> dict[str, Any]:
    """Names, units and control rate of a task, or of several together, as a checkpoint keeps them."""
    return named(units_of(tasks), ACTIONS) | {"control_rate_hz": CONTROL_RATE_HZ}


def _axes(rotation: np.ndarray) -> np.ndarray:
    """The x and y axes [..., 6] of rotation matrices [..., 9]: unlike quaternions and angles they never jump."""
    columns = rotation.reshape(-1, 3, 3)[:, :, :2]
    return columns.transpose(0, 2, 1)


def _domain(task: LiberoTask, compiled: mujoco.MjModel | None) -> Any:
    """LIBERO's own environment of the task, without renderer, its model compiled or copied."""
    _, get_problem, kinds = _libero()
    from robosuite import load_controller_config
    from robosuite.utils.binding_utils import MjSim

    base = kinds[get_problem(task.bddl_file)["problem_name"]]

    class CopiedDomain(base):  # type: ignore[misc, valid-type]
        """The task with a copy of the model compiled once: fixtures are placed in the model itself."""

        def _initialize_sim(self, xml_string: str | None = None) -> None:
            if compiled is None:
                super()._initialize_sim(xml_string or _without_textures(self.model.get_xml()))
                return
            self.sim = MjSim(copy.copy(compiled))
            self.sim.forward()
            self.initialize_time(self.control_freq)

    CopiedDomain.__name__ = base.__name__  # which LIBERO holds against the task's description
    with _numpy_seeded(0):
        return CopiedDomain(
            task.bddl_file,
            robots=["Panda"],
            controller_configs=load_controller_config(default_controller="OSC_POSE"),
            initialization_noise=None,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            control_freq=int(CONTROL_RATE_HZ),
            ignore_done=True,
            hard_reset=False,
        )


def release_gripper(domain: Any) -> None:
    """Undo the gripper's last command, which robosuite's quick reset leaves to the next episode."""
    domain.robots[0].gripper.current_action = np.zeros(1)


def quieten() -> None:
    """Spare our users what robosuite advises its own; the progress bar must stay readable.

    Nor does it log to `/tmp/robosuite.log`, which on a shared machine is somebody else's: its settings are read before
    the package itself, which opens that file as it is imported.
    """
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    package, name = find_spec("robosuite"), "robosuite.macros"
    if package is None or package.origin is None or name in sys.modules:
        return
    settings = spec_from_file_location(name, Path(package.origin).with_name("macros.py"))
    assert settings is not None
    assert settings.loader is not None
    macros = sys.modules[name] = module_from_spec(settings)
    settings.loader.exec_module(macros)
    vars(macros)["FILE_LOGGING_LEVEL"] = None


def _libero() -> tuple[Any, Any, Any]:
    """From LIBERO: the class of a kind of thing, the parser of descriptions, the environments by kind of problem."""
    quieten()
    with graphics.not_needed():
        from libero.libero.envs import TASK_MAPPING
        from libero.libero.envs.bddl_utils import robosuite_parse_problem
        from libero.libero.envs.objects import get_object_fn
    return get_object_fn, robosuite_parse_problem, TASK_MAPPING


def _without_textures(xml: str) -> str:
    """A model's XML without textures: the same physics in a third of the memory, as nobody looks at it."""
    root = ElementTree.fromstring(xml)
    assets = root.find("asset")
    assert assets is not None
    for texture in assets.findall("texture"):
        assets.remove(texture)
    for material in assets.findall("material"):
        material.attrib.pop("texture", None)
    return ElementTree.tostring(root, encoding="unicode")


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """A context in which numpy's global generator, from which robosuite draws, is seeded; it is left as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
