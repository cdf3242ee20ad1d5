"""An environment as a robot: its own policy fits it, whatever its types, and the log says what it was sent."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")
from gipo.common.errors import UserError  # noqa: E402
from robots.cli import main  # noqa: E402
from robots.drivers.gym import GymRobot, robot, spec_of  # noqa: E402
from robots.log import Episode, read_log  # noqa: E402
from tests import typed_env  # noqa: E402

typed_env.register()


@pytest.mark.parametrize(
    ("name", "action", "sent"),
    [("Whole-v0", 0.268, 0.0), ("Whole-v0", -1.6, -2.0), ("Bytes-v0", 254.5, 254.0), ("Double-v0", 0.25, 0.25),
     ("Half-v0", 0.05, float(np.float16(0.05))), ("Counts-v0", 0.1, float(np.float32(0.1)))],
)  # fmt: skip
def test_act_answers_with_what_was_sent(name: str, action: float, sent: float) -> None:
    env = gymnasium.make(name)
    driven = GymRobot(env, spec_of(env, name))
    driven.prepare(0)
    answer = driven.act(np.array([action]))
    assert answer.dtype == np.float64
    assert answer.tolist() == [sent] == [float(value[0]) for value in typed_env.SENT]


@pytest.mark.parametrize(
    ("info", "success"), [({}, None), ({"success": None}, None), ({"success": None, "is_success": 1.0}, True),
                          ({"success": 0.0, "is_success": True}, False), ({"success": "no"}, None),
                          ({"success": 0.5}, None), ({"success": float("nan")}, None)]
)  # fmt: skip
def test_an_environment_that_does_not_say_is_no_failure(info: dict[str, object], success: bool | None) -> None:
    env = gymnasium.make("Double-v0").unwrapped
    driven = GymRobot(env, spec_of(env, "Double-v0", 10.0))
    driven.prepare(0)
    values = env.observation_space.sample()
    env.step = lambda action: (values, 0.0, False, False, info)
    driven.act(np.zeros(1))
    assert driven.observe().success is success


def test_who_says_only_that_it_is_done_has_no_success_counted(capfd: pytest.CaptureFixture[str]) -> None:
    """As in training: of the episodes that say something, every one would have succeeded."""
    env = gymnasium.make("Double-v0").unwrapped
    driven = GymRobot(env, spec_of(env, "Double-v0", 10.0))
    infos = iter([{}, {"success": True}, {}, {"success": True}])
    env.step = lambda action: (env.observation_space.sample(), 0.0, False, False, next(infos))
    said = []
    for seed in range(2):
        driven.prepare(seed)
        for _ in range(2):
            driven.act(np.zeros(1))
            said.append(driven.observe().success)
    assert said == [None] * 4
    assert capfd.readouterr().err.count("Double-v0 says whether it is done in some steps' `info`, and not in the") == 1


def test_what_an_environment_writes_into_its_action_is_not_what_it_was_sent() -> None:
    env = gymnasium.make("Double-v0").unwrapped
    driven = GymRobot(env, spec_of(env, "Double-v0", 10.0))
    driven.prepare(0)

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        action *= 3
        return env.observation_space.sample(), 0.0, False, False, {}

    env.step = step
    assert driven.act(np.full(1, 0.25)).tolist() == [0.25]


@pytest.fixture(scope="module")
def own_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built for the spaces that training reads off `Double-v0`, and exported."""
    pytest.importorskip("torch", reason="artifacts are exported with torch")
    from datamodules.envs.interface import gymnasium_interface
    from datamodules.envs.tasks import simulation
    from deploy.export.artifact import export
    from gipo.networks import SeparateNetworks
    from gipo.policies import TokenPolicy
    from tests.deploy.builders import save

    task, folder = simulation("Double-v0"), tmp_path_factory.mktemp("own")
    env = task.make(1, 0)
    policy = TokenPolicy(task.spaces(env), network=lambda i, o: SeparateNetworks(i, o, hidden=(8,))).eval()
    env.close()
    export(
        save(policy, folder / "a.ckpt", task=task.name, interface=gymnasium_interface(task.name, 2, 1)),
        folder / "a.onnx",
    )
    return folder / "a.onnx"


def drive(policy: Path, folder: Path, *settings: str) -> Episode:
    command = ["run", "--robot", "gym", "--policy", str(policy), "--log", str(folder / "logs"), "--steps", "30"]
    assert main([*command, "--episodes", "1", "--speed", "50", *settings]) == 0
    (path,) = (folder / "logs").glob("*.mcap")
    (episode,) = read_log(path).episodes
    return episode


def test_an_environment_of_doubles_takes_its_own_policy(own_policy: Path, tmp_path: Path) -> None:
    """Its bound .35 is .3499999940395355 in the artifact."""
    episode = drive(own_policy, tmp_path)
    assert len(episode) == 30
    np.testing.assert_array_equal(episode["sent_action"], np.stack(typed_env.SENT))


def test_the_log_says_which_whole_numbers_were_sent(own_policy: Path, tmp_path: Path) -> None:
    from tests.robots.artifacts import changed

    policy = changed(own_policy, tmp_path / "whole.onnx", action_low=(-3.0,), action_high=(3.0,))
    episode = drive(policy, tmp_path, "--set", "env=Whole-v0")
    assert [sent.tolist() for sent in typed_env.SENT] == [[0]] * 30
    assert episode["sent_action"].tolist() == [[0.0]] * 30
    assert np.abs(episode["action"]).max() > 0.2


def test_a_bound_that_truly_differs_is_refused() -> None:
    spec = spec_of(gymnasium.make("Double-v0"), "Double-v0")
    keys = ("observation_names", "observation_units", "action_names", "action_units")
    manifest = SimpleNamespace(
        **{key: getattr(spec, key) for key in keys}, control_rate_hz=50.0,
        action_low=(-0.3499999940395355,), action_high=(0.3499999940395355,),
    )  # fmt: skip
    assert spec.differences(manifest) == []
    manifest.action_high = (0.3500001,)
    assert spec.differences(manifest) == ["action_high: the robot has (0.35,), the policy (0.3500001,)"]
    manifest.action_high, manifest.control_rate_hz = (0.35,), 49.99
    assert spec.differences(manifest) == ["control rate: the robot has 50.0 Hz, the policy 49.99 Hz"]


@pytest.mark.parametrize(("rate", "message"), [(0.0, "control_rate_hz is 0"), (-5.0, "control_rate_hz is -5")])
def test_a_rate_of_zero_is_not_taken_for_none(rate: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        robot(SimpleNamespace(task="", observation_names=("x",)), env="Pendulum-v1", rate=rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Taxi-v3", "Blackjack-v1", "CartPole-v1", "no/such-v0", ""])
def test_what_is_no_flat_bounded_environment(name: str) -> None:
    with pytest.raises(UserError, match=r"needs flat Box spaces|there is no Gymnasium environment"):
        robot(SimpleNamespace(task="Pendulum-v1", observation_names=("x",)), env=name)  # type: ignore[arg-type]
