"""The robots themselves: the simulated arm and its gap, Gymnasium environments, LeRobot's interface, and loading."""

import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from gipo.common.simulators import metaworld
from robots.drivers.gym import GymRobot, spec_of
from robots.drivers.lerobot import LeRobotRobot
from robots.drivers.lerobot import robot as lerobot_robot
from robots.drivers.sim import RealityGap, SimRobot
from robots.drivers.sim import make_spec as sim_spec
from robots.drivers.sim import robot as sim_robot
from robots.load import load_robot
from robots.spec import RobotSpec
from tests.needs import needs_sim
from tests.robots.builders import make_spec


def manifest(spec: Any, **changes: Any) -> Any:
    keys = ("observation_names", "observation_units", "action_names", "action_units", "action_low", "action_high")
    values = {key: getattr(spec, key) for key in keys}
    return types.SimpleNamespace(**{**values, "control_rate_hz": spec.control_rate_hz, "task": "reach-v3", **changes})


def rollout(robot: SimRobot, actions: np.ndarray, seed: int = 3) -> np.ndarray:
    """Observations [1 + T, O]."""
    robot.prepare(seed)
    found = [robot.observe().values]
    for action in actions:
        robot.act(action)
        found.append(robot.observe().values)
    return np.array(found)


ACTIONS = np.random.default_rng(0).uniform(-1, 1, (25, 4))


@pytest.fixture(scope="module")
def plain() -> SimRobot:
    pytest.importorskip("metaworld")
    robot = SimRobot("reach-v3", realtime=False)
    robot.connect()
    return robot


def arm(**gap: Any) -> SimRobot:
    robot = SimRobot("reach-v3", RealityGap(**gap), realtime=False)
    robot.connect()
    return robot


def test_without_a_gap_the_arm_is_the_training_simulator(plain: SimRobot) -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env = ALL_V3_ENVIRONMENTS["reach-v3"]()
    env.__dict__.pop("sawyer_observation_space", None)
    env._partially_observable, env._freeze_rand_vec = False, False
    env.seeded_rand_vec, env._set_task_called = True, True
    env.np_random = np.random.default_rng(3)
    expected = [env.reset()[0]]
    expected += [env.step(action.astype(np.float32))[0] for action in ACTIONS]
    np.testing.assert_array_equal(rollout(plain, ACTIONS), expected)
    assert env.dt == pytest.approx(1 / plain.spec.control_rate_hz)
    assert (plain.spec.action_low, plain.spec.action_high) == (
        tuple(env.action_space.low),
        tuple(env.action_space.high),
    )


def test_names_say_what_the_numbers_are(plain: SimRobot) -> None:
    rows = rollout(plain, ACTIONS)
    column = dict(zip(metaworld.OBSERVATIONS, rows.T, strict=True))
    np.testing.assert_array_equal(column["previous_hand_x"][1:], column["hand_x"][:-1])
    assert (column["goal_z"] == column["goal_z"][0]).all()
    np.testing.assert_allclose(column["goal_x"][0], plain._env._target_pos[0])
    moved = rollout(plain, np.tile([1.0, 0.0, 0.0, 0.0], (20, 1)))
    assert np.ptp(moved[:, list(metaworld.OBSERVATIONS).index("hand_x")]) > 0.05
    closed = rollout(plain, np.tile([0.0, 0.0, 0.0, 1.0], (20, 1)))
    assert closed[-1, list(metaworld.OBSERVATIONS).index("gripper_opening")] < 0.8
    assert list(metaworld.ACTIONS)[3] == "gripper_effort"


def test_names_and_rate_are_those_training_records() -> None:
    recorded = pytest.importorskip("datamodules.envs.interface", reason="needs the training stack")
    tasks = pytest.importorskip("datamodules.envs.tasks", reason="needs the training stack")
    spec, known = sim_spec(), tasks.simulation("reach-v3").interface
    for key, value in known.items():
        found = getattr(spec, key)
        assert (list(found) if isinstance(found, tuple) else found) == value
    gymnasium = pytest.importorskip("gymnasium")
    spec, known = spec_of(gymnasium.make("Pendulum-v1"), "x"), recorded.gymnasium_interface("Pendulum-v1", 3, 1)
    for key, value in known.items():
        found = getattr(spec, key)
        assert (list(found) if isinstance(found, tuple) else found) == value


def test_seeds_choose_goals(plain: SimRobot) -> None:
    goals = [rollout(plain, ACTIONS[:1], seed)[0, -3:].tolist() for seed in (1, 2, 1)]
    assert goals[0] == goals[2] != goals[1]


@pytest.mark.parametrize(
    "gap",
    [
        {"action_gain": 0.5},
        {"action_offset": 0.2},
        {"delay": 3},
        {"friction_scale": 30.0},
        {"mass_scale": 3.0},
        {"observation_bias": 0.01},
        {"observation_noise": 0.01},
    ],
)
def test_each_gap_makes_a_difference_and_repeats_with_its_seed(plain: SimRobot, gap: dict[str, float]) -> None:
    robot = arm(**gap)
    first = rollout(robot, ACTIONS)
    assert np.abs(first - rollout(plain, ACTIONS)).max() > 1e-5
    np.testing.assert_array_equal(first, rollout(robot, ACTIONS))


def test_errors_of_the_sensors_are_not_drawn_from_what_chooses_actions(plain: SimRobot) -> None:
    erring = arm(observation_bias=1.0)
    erring.prepare(8)
    plain.prepare(8)
    errors = erring.observe().values - plain.observe().values
    for episode in range(3):  # of a session whose episode has this seed
        drawn = np.random.default_rng([8, episode]).standard_normal(len(errors))
        assert np.abs(errors - drawn).max() > 0.1


def test_a_delay_is_a_delay(plain: SimRobot) -> None:
    late = rollout(arm(delay=3), ACTIONS)
    shifted = rollout(plain, np.concatenate([np.zeros((3, 4)), ACTIONS[:-3]]))
    np.testing.assert_array_equal(late, shifted)


@needs_sim
def test_dropped_readings_are_seen_again_with_their_time() -> None:
    robot = arm(drop=0.5)
    robot.prepare(0)
    found = [robot.observe()]
    for action in ACTIONS:
        robot.act(action)
        found.append(robot.observe())
    times = np.array([each.time_ns for each in found])
    repeated = np.diff(times) == 0
    assert 5 < repeated.sum() < 20
    for index in np.flatnonzero(repeated):
        np.testing.assert_array_equal(found[index].values, found[index + 1].values)


@needs_sim
def test_in_real_time_the_arm_does_not_wait() -> None:
    robot = SimRobot("reach-v3", realtime=True)
    robot.connect()
    robot.prepare(0)
    robot.observe()
    robot.act(np.array([1.0, 0.0, 0.0, 0.0]))
    before = robot._env.data.time
    time.sleep(0.1)
    robot.observe()
    passed = robot._env.data.time - before
    assert 0.075 <= passed <= 0.4
    robot.stop("enough")
    with pytest.raises(UserError, match="stopped"):
        robot.act(np.zeros(4))


@needs_sim
@pytest.mark.parametrize(
    "gap", [{"drop": 2}, {"delay": 1.5}, {"delay": -1}, {"action_gain": float("nan")}, {"mass_scale": "x"}]
)
def test_gaps_that_make_no_sense(gap: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(gap))):
        RealityGap(**gap)
    with pytest.raises(UserError, match="no option 'gain'"):
        sim_robot(manifest(sim_spec()), gain=1)
    with pytest.raises(UserError, match="no MetaWorld task"):
        SimRobot("reach-v9").connect()


def test_the_manifest_arms_the_robot() -> None:
    spec = sim_spec()
    spec.check(manifest(spec))
    for key, value in {
        "observation_names": spec.observation_names[::-1],
        "observation_units": ("mm", *spec.observation_units[1:]),
        "action_names": spec.action_names[:3],
        "action_high": (1.0, 1.0, 1.0, 1.0000001),
        "action_low": (-2.0, -1.0, -1.0, -1.0),
        "control_rate_hz": 79.9,
    }.items():
        with pytest.raises(UserError, match=key.replace("control_rate_hz", "control rate")):
            spec.check(manifest(spec, **{key: value}))


def test_a_policy_without_names_gets_a_robot_without_names() -> None:
    numbered = manifest(sim_spec().nameless())
    sim_robot(numbered).spec.check(numbered)
    assert sim_robot(manifest(sim_spec())).spec.observation_names == tuple(metaworld.OBSERVATIONS)


def test_any_gymnasium_environment() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("Pendulum-v1", max_episode_steps=-1)
    robot = GymRobot(env, spec_of(env, "Pendulum-v1"))
    assert robot.spec.control_rate_hz == env.metadata["render_fps"]
    robot.prepare(1)
    first = robot.observe()
    assert (first.reward, first.success, first.terminated) == (0.0, None, False)
    sent = robot.act(np.array([0.5]))
    again = robot.observe()
    assert again.reward < 0
    np.testing.assert_array_equal(sent, [0.5])
    for _ in range(300):  # longer than the environment's own time limit
        robot.act(np.array([0.1]))
    robot.stop("enough")
    with pytest.raises(UserError):
        robot.act(np.array([0.1]))
    robot.close()
    with pytest.raises(UserError, match="flat Box"):
        spec_of(types.SimpleNamespace(observation_space=None, action_space=None), "odd")
    with pytest.raises(UserError, match=r"not bounded|flat Box"):
        spec_of(gymnasium.make("CartPole-v1"), "CartPole-v1")


class FakeLeRobot:
    """LeRobot's interface, as `lerobot.robots.Robot` declares it."""

    class Config:
        def __init__(self, port: str, id: str | None = None):
            self.port = port

    config_class = Config

    def __init__(self, config: Any):
        self.config, self.is_connected, self.is_calibrated = config, False, True
        self.position = {"pan.pos": 10.0, "grip.pos": 50.0}
        self.sent: list[dict[str, float]] = []

    @property
    def observation_features(self) -> dict[str, Any]:
        return {"pan.pos": float, "grip.pos": float, "wrist": (4, 6, 3)}

    @property
    def action_features(self) -> dict[str, type]:
        return {"pan.pos": float, "grip.pos": float}

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate
        self.is_connected = True

    def get_observation(self) -> dict[str, Any]:
        return {**self.position, "wrist": np.zeros((4, 6, 3), np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        assert all(type(value) is float for value in action.values())
        self.sent.append(action)
        self.position = {key: min(value, 60.0) for key, value in action.items()}  # the driver clips on its own
        return dict(self.position)

    def disconnect(self) -> None:
        self.is_connected = False


def test_a_spec_takes_the_bounds_of_a_space_as_numpy_has_them() -> None:
    low, high = np.full(3, -1.5, np.float32), np.full(3, 1.5, np.float32)
    plain = make_spec(action_low=(-1.5,) * 3, action_high=(1.5,) * 3)
    assert make_spec(action_low=tuple(low), action_high=high, control_rate_hz=np.int64(80)) == plain
    assert RobotSpec.from_json(make_spec(action_low=low, action_high=list(high)).to_json()) == plain
    with pytest.raises(UserError, match=r"spec\.action_low is inf; it must be finite"):
        make_spec(action_low=np.array([0, np.inf, 0]))


def lerobot_spec() -> Any:
    return make_spec(
        name="so101",
        observation_names=("pan.pos", "grip.pos"),
        observation_units=("%",) * 2,
        observation_low=(-120.0,) * 2,
        observation_high=(120.0,) * 2,
        action_names=("pan.pos", "grip.pos"),
        action_units=("%",) * 2,
        action_low=(-100.0, 0.0),
        action_high=(100.0, 100.0),
        action_rate=(200.0,) * 2,
        action_acceleration=(None, None),
        action_hold=("measured", "measured"),
        control_rate_hz=30.0,
    )


def test_lerobot() -> None:
    device = FakeLeRobot(FakeLeRobot.Config("x"))
    robot = LeRobotRobot(device, lerobot_spec())
    robot.connect()
    robot.prepare(0)
    found = robot.observe()
    np.testing.assert_array_equal(found.values, [10.0, 50.0])
    np.testing.assert_array_equal(found.hold, [10.0, 50.0])
    assert found.images["wrist"].shape == (4, 6, 3)
    np.testing.assert_array_equal(robot.act(np.array([12.0, 80.0])), [12.0, 60.0])
    robot.observe()
    robot.stop("enough")
    robot.stop("again")
    assert device.sent[-1] == {"pan.pos": 12.0, "grip.pos": 60.0}
    assert len(device.sent) == 2
    with pytest.raises(UserError):
        robot.act(np.array([0.0, 0.0]))
    robot.close()
    assert not device.is_connected


def test_lerobot_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeLeRobot(FakeLeRobot.Config("x"))
    with pytest.raises(UserError, match=r"only in the device \['grip.pos'"):
        LeRobotRobot(device, make_spec())
    device.is_calibrated = False
    with pytest.raises(UserError, match="calibrate"):
        LeRobotRobot(device, lerobot_spec()).connect()
    with pytest.raises(UserError, match="install lerobot"):
        lerobot_robot("lerobot.robots.none:None", "spec.json")
    module = types.ModuleType("fake_lerobot")
    module.Arm = FakeLeRobot  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_lerobot", module)
    (tmp_path / "arm.json").write_text(lerobot_spec().to_json())
    made = lerobot_robot("fake_lerobot:Arm", str(tmp_path / "arm.json"), port="/dev/ttyACM0")
    assert made.device.config.port == "/dev/ttyACM0"
    with pytest.raises(UserError, match="speed is no setting of Config; its settings are: port, id"):
        lerobot_robot("fake_lerobot:Arm", str(tmp_path / "arm.json"), speed=3)
    with pytest.raises(UserError, match=r"cannot read .*none\.json"):
        lerobot_robot("fake_lerobot:Arm", str(tmp_path / "none.json"))


def test_loading_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = manifest(sim_spec())
    robot = load_robot("sim", known, ["action_gain=.5", "delay=2"], speed=20)
    assert isinstance(robot, SimRobot)
    assert (robot.gap.action_gain, robot.gap.delay, robot.realtime) == (0.5, 2, False)
    for name in ("nothing", "robots.drivers.sim:nothing", "nothing:robot", "..:x"):
        with pytest.raises(UserError, match="there is no robot"):
            load_robot(name, known, [])
    with pytest.raises(UserError, match="--robot lerobot needs --device: LeRobot's name of a robot"):
        load_robot("lerobot", known, ["port=x"])
    with pytest.raises(UserError, match=r"gives a RealityGap without connect\(\)"):
        load_robot("robots.drivers.sim:RealityGap", known, [])
    (tmp_path / "my_real_robot.py").write_text("from tests.robots.fakes import FakeRobot\n")
    monkeypatch.syspath_prepend(tmp_path)  # the commands themselves search the working folder
    assert load_robot("my_real_robot:FakeRobot", known, []).spec.name == "fake"
    with pytest.raises(UserError, match="wall clock"):
        load_robot("my_real_robot:FakeRobot", known, [], speed=2)
