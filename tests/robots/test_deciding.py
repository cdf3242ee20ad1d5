"""Policies over chunks on a robot with a camera: when they are asked, what is done, and what is logged of it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.policy import OnnxPolicy
from gipo.vla.policies import VLATokenPolicy
from robots.audit import audit
from robots.base import Observation
from robots.errors import LogError, RobotError
from robots.log import LogWriter, Session, read_log
from robots.log.scan import Scanner
from robots.loop import ControlLoop
from robots.options import Options
from robots.shadow import check_comparable
from tests.deploy.builders import save
from tests.deploy.test_deploy_vision import make_vla
from tests.robots.builders import make_spec
from tests.robots.fakes import FakeRobot

STEPS = 8


class SeeingRobot(FakeRobot):
    """Moves as it is told, and shows the tick as the brightness of its image."""

    def reading(self, **changes: Any) -> Observation:
        return super().reading(images={"front": self.image(self.tick)}, **changes)

    @staticmethod
    def image(tick: int) -> np.ndarray:
        return np.full((12, 10, 3), 10 * tick, np.uint8)


def seeing_robot() -> SeeingRobot:
    names = {
        "observation_names": ("a", "b", "c", "d"), "observation_units": ("1",) * 4, "observation_low": (-10.0,) * 4,
        "observation_high": (10.0,) * 4, "action_names": ("x", "y"), "action_units": ("1",) * 2,
        "action_low": (-1.0, -2.0), "action_high": (1.0, 2.0), "action_rate": (None,) * 2,
        "action_acceleration": (None,) * 2, "action_hold": (0.0, 0.0),
    }  # fmt: skip
    return SeeingRobot(make_spec(**names))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> OnnxPolicy:
    from deploy.export import export

    folder = tmp_path_factory.mktemp("seeing")
    export(save(make_vla(VLATokenPolicy, bins=9), folder / "a.ckpt", interface=None), folder / "a.onnx", rate=80.0)
    return OnnxPolicy.load(folder / "a.onnx")


def run(policy: OnnxPolicy, path: Path, **options: Any) -> tuple[SeeingRobot, Any]:
    robot = seeing_robot()
    settings = {"steps": STEPS, "engage_seconds": 0.0, "deadline": 80.0, "max_age": 80.0, "instruction": "push"}
    writer = LogWriter(path, Session(robot.spec.to_json()))
    loop = ControlLoop(robot, policy, writer, Options(**{**settings, "camera": "front", **options}))  # type: ignore[arg-type]
    result = loop.run(0, seed=5)
    loop.close()
    writer.close()
    return robot, (result, read_log(path))


@pytest.mark.parametrize(("replan", "length"), [(0, 3), (2, 2), (1, 1)])
def test_a_chunk_is_gone_through_before_the_next_is_decided(
    policy: OnnxPolicy, tmp_path: Path, replan: int, length: int
) -> None:
    robot, (result, log) = run(policy, tmp_path / "log.mcap", replan=replan)
    assert not result.stopped, result.reason
    (episode,) = log.episodes
    assert episode["chunk_step"].tolist() == [tick % length for tick in range(STEPS)]
    rng = np.random.default_rng([5, 0])  # as the log says where its noise comes from
    for tick in range(0, STEPS, length):
        row = policy.row(episode["observation"][tick], robot.image(tick), "push")
        decision = policy.act(row, rng)
        for step in range(min(length, STEPS - tick)):
            for name in ("action", "latent", "log_prob"):
                np.testing.assert_array_equal(episode[name][tick + step], getattr(decision, name)[step])
    np.testing.assert_allclose(robot.commands, episode["action"])
    assert episode.event("episode_start")["data"]["instruction"] == "push"


def test_images_are_logged_beside_the_steps(policy: OnnxPolicy, tmp_path: Path) -> None:
    run(policy, tmp_path / "log.mcap")
    with open(tmp_path / "log.mcap", "rb") as file:
        topics = [topic for item in Scanner(file).items() if isinstance(item, list) for topic, _ in item]
    assert topics.count("camera") == STEPS + 1  # also what followed the last command


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"camera": "wrist"}, "no pixels of camera 'wrist'; of: front"),
        ({"instruction": "x" * 17}, "17 bytes, the policy reads 16"),
    ],
)
def test_what_the_policy_cannot_see_stops_the_robot(
    policy: OnnxPolicy, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    robot, (result, _) = run(policy, tmp_path / "log.mcap", **options)
    assert result.stopped
    assert said in result.reason
    assert len(robot.commands) == 0


def test_more_steps_than_a_chunk_has_are_refused(policy: OnnxPolicy, tmp_path: Path) -> None:
    with pytest.raises(RobotError, match="replan is 4, the policy decides on 3 actions at once"):
        run(policy, tmp_path / "log.mcap", replan=4)


def test_its_logs_are_not_audited_without_their_images_and_it_has_no_shadow(policy: OnnxPolicy, tmp_path: Path) -> None:
    run(policy, tmp_path / "log.mcap")
    with pytest.raises(LogError, match="sees a camera"):
        audit([tmp_path / "log.mcap"], {policy.policy_id: policy})
    with pytest.raises(RobotError, match="neither be a shadow nor have one"):
        check_comparable(policy, policy)


def test_an_episode_begins_with_a_chunk_of_its_own(policy: OnnxPolicy, tmp_path: Path) -> None:
    robot = seeing_robot()
    writer = LogWriter(tmp_path / "log.mcap", Session(robot.spec.to_json()))
    options = Options(steps=4, engage_seconds=0.0, deadline=80.0, max_age=80.0, camera="front", instruction="push")
    loop = ControlLoop(robot, policy, writer, options)
    for episode in range(2):
        loop.run(episode, seed=episode)
        time.sleep(0)
    loop.close()
    writer.close()
    assert [found["chunk_step"].tolist() for found in read_log(tmp_path / "log.mcap").episodes] == [[0, 1, 2, 0]] * 2
