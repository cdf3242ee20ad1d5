"""Policies over chunks on a robot with a camera: when they are asked, what is done, and what is logged of it."""

import base64
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.vla.policies import VLATokenPolicy
from robots.base import Observation
from robots.decider import Decider
from robots.log import Image, LogWriter, Session, pixels_of, read_log
from robots.log.images import compressed_image, png
from robots.log.scan import Scanner
from robots.loop import ControlLoop
from robots.review.audit import audit
from robots.review.export import export as export_logs
from robots.review.findings import Audit
from robots.review.info import info
from robots.review.report import write_report
from robots.session.options import Options
from robots.session.runner import Runner
from robots.session.shadow import check_comparable
from robots.spec import RobotSpec
from tests.deploy.builders import save
from tests.deploy.test_deploy_vision import make_vla
from tests.robots.builders import make_spec
from tests.robots.fakes import FakePolicy, FakeRobot

STEPS = 8


class SeeingRobot(FakeRobot):
    """Moves as it is told, and shows the tick as the brightness of its image."""

    def reading(self, **changes: Any) -> Observation:
        return super().reading(images={"front": self.image(self.tick)}, **changes)

    @staticmethod
    def image(tick: int) -> np.ndarray:
        return np.full((12, 10, 3), 10 * tick, np.uint8)


class Unconnectable(SeeingRobot):
    def connect(self) -> None:
        raise AssertionError("nothing may be opened")


def make_seeing_spec() -> RobotSpec:
    names = {
        "observation_names": ("a", "b", "c", "d"), "observation_units": ("1",) * 4, "observation_low": (-10.0,) * 4,
        "observation_high": (10.0,) * 4, "action_names": ("x", "y"), "action_units": ("1",) * 2,
        "action_low": (-1.0, -2.0), "action_high": (1.0, 2.0), "action_rate": (None,) * 2,
        "action_acceleration": (None,) * 2, "action_hold": (0.0, 0.0),
    }  # fmt: skip
    return make_spec(**names)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> OnnxPolicy:
    from deploy.export.artifact import export

    folder = tmp_path_factory.mktemp("seeing")
    spec = make_seeing_spec()
    interface = {name: getattr(spec, name) for name in ("observation_names", "observation_units", "action_names")}
    interface |= {"action_units": spec.action_units, "control_rate_hz": spec.control_rate_hz}
    checkpoint = save(make_vla(VLATokenPolicy, bins=9), folder / "a.ckpt", interface=interface)
    export(checkpoint, folder / "a.onnx", observations=50)
    return OnnxPolicy.load(folder / "a.onnx")


def run(policy: OnnxPolicy, path: Path, **options: Any) -> tuple[SeeingRobot, Any]:
    robot = SeeingRobot(make_seeing_spec())
    settings = {"steps": STEPS, "engage_seconds": 0.0, "deadline": 80.0, "max_age": 80.0, "instruction": "push"}
    writer = LogWriter(path, Session(robot.spec.to_json(), {policy.policy_id: policy.manifest.to_json()}))
    loop = ControlLoop(robot, policy, writer, Options(**{**settings, "camera": "front", **options}))  # type: ignore[arg-type]
    result = loop.run(0, seed=5)
    loop.close()
    writer.close()
    return robot, (result, read_log(path))


def audited(policy: OnnxPolicy, folder: Path) -> Audit:
    return audit([folder / "log.mcap"], {policy.policy_id: policy})


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


def test_what_others_have_moved_is_decided_on_anew(policy: OnnxPolicy) -> None:
    decider, rng = Decider(policy, Options(instruction="push", camera="front")), np.random.default_rng(0)
    found = Observation(np.zeros(4), 1, images={"front": SeeingRobot.image(1)})

    def ask() -> tuple[int, int]:
        return decider.next(found, np.zeros(4), rng)[1], decider.decisions

    decider.begin()
    assert [ask(), ask()] == [(0, 1), (1, 1)]
    decider.decide_anew()
    assert [ask() for _ in range(4)] == [(0, 2), (1, 2), (2, 2), (0, 3)]
    decider.begin()
    assert ask() == (0, 1)


def test_images_are_logged_beside_the_steps(policy: OnnxPolicy, tmp_path: Path) -> None:
    run(policy, tmp_path / "log.mcap")
    with open(tmp_path / "log.mcap", "rb") as file:
        topics = [topic for block in Scanner(file).blocks() for topic, _ in block]
    assert topics.count("camera") == STEPS + 1  # also what followed the last command


def test_what_the_policy_cannot_see_stops_the_robot(policy: OnnxPolicy, tmp_path: Path) -> None:
    robot, (result, _) = run(policy, tmp_path / "log.mcap", camera="wrist")
    assert result.stopped
    assert "shows the policy nothing of a camera 'wrist': say which one with --camera front" in result.reason
    assert len(robot.commands) == 0


@pytest.mark.parametrize("fault", [{}, {"front": np.zeros((12, 8, 3), np.uint8)}], ids=["nothing", "another size"])
def test_a_camera_that_fails_is_no_failure_of_the_policy(
    policy: OnnxPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, np.ndarray]
) -> None:
    def observe(robot: SeeingRobot) -> Observation:
        robot.tick += 1
        found = robot.reading(success=False)
        return found if robot.tick < 3 else replace(found, images=fault)

    monkeypatch.setattr(SeeingRobot, "observe", observe)
    _, (result, log) = run(policy, tmp_path / "log.mcap")
    assert (result.stopped, result.steps) == (True, 3)
    assert (result.success, log.episodes[0].success) == (None, None), result.reason
    assert not any(event["kind"] == "outcome" for event in log.events)


def test_an_observation_without_an_image_is_told_from_a_robot_without_a_camera(policy: OnnxPolicy) -> None:
    decider = Decider(policy, Options(instruction="push", camera="front"))
    with pytest.raises(UserError, match="camera 'front': no camera of it gives an image with this observation"):
        decider.next(Observation(np.zeros(4), 1), np.zeros(4), np.random.default_rng(0))


def test_the_bytes_of_a_file_are_told_from_no_image(policy: OnnxPolicy) -> None:
    """A log takes them, a policy cannot see by them."""
    decider = Decider(policy, Options(instruction="push", camera="front"))
    found = Observation(np.zeros(4), 1, images={"front": png(SeeingRobot.image(1)), "side": SeeingRobot.image(1)})
    with pytest.raises(UserError, match=r"camera 'front' gives the bytes of a file, .*: decode it in observe\(\)"):
        decider.next(found, np.zeros(4), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replan": 4}, "replan is 4, the policy decides on 3 actions at once"),
        ({"instruction": ""}, "say what it is to do"),
        ({"instruction": "schieß\udcdf"}, r"--instruction 'schie\\xdf\\udcdf' is not UTF-8"),
        ({"instruction": "x" * 17}, "17 bytes, the policy reads 16"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(
    policy: OnnxPolicy, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Runner(Unconnectable(make_seeing_spec()), policy, Options(**{"instruction": "push", **options}), tmp_path)


@pytest.mark.parametrize(
    "options", [{"instruction": "push"}, {"replan": 1}, {"camera": "front"}, {"camera": ("front", "wrist")}]
)
def test_a_flat_policy_takes_none_of_what_one_that_sees_takes(options: dict[str, Any]) -> None:
    said = f"the policy sees nothing and decides at every tick; leave --{next(iter(options))} out"
    with pytest.raises(UserError, match=said):
        Decider(FakePolicy(), Options(**options))


@pytest.mark.parametrize("replan", [0, 2])
@pytest.mark.parametrize("deterministic", [False, True])
def test_its_log_is_recomputed_from_the_images_in_it(
    policy: OnnxPolicy, tmp_path: Path, replan: int, deterministic: bool
) -> None:
    run(policy, tmp_path / "log.mcap", replan=replan, deterministic=deterministic)
    found = audited(policy, tmp_path)
    assert found.steps == {(policy.policy_id, 7): STEPS}
    assert found.log_prob[policy.policy_id] < 1e-6
    assert (found.unseen, found.unreplayed) == (0, 0)
    assert found.action.keys() == {policy.policy_id}
    assert found.action[policy.policy_id] < 1e-6
    found.check()


def test_the_policy_sees_the_image_that_is_logged(
    policy: OnnxPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = np.zeros((12, 10, 3), np.uint8)  # which the thread of a camera fills again and again

    def shown(robot: SeeingRobot, **changes: Any) -> Observation:
        memory[:] = robot.image(robot.tick)
        return FakeRobot.reading(robot, images={"front": memory}, **changes)

    def next_frame() -> bool:
        memory[:] = 255
        return True

    monkeypatch.setattr(SeeingRobot, "reading", shown)
    run(policy, tmp_path / "log.mcap", deadman=next_frame)  # asked between the log and the policy
    audited(policy, tmp_path).check()


def test_an_image_that_the_policy_did_not_see_is_found(
    policy: OnnxPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = LogWriter.image
    monkeypatch.setattr(LogWriter, "image", lambda log, row: true(log, row._replace(pixels=255 - row.pixels)))
    run(policy, tmp_path / "log.mcap")
    with pytest.raises(UserError, match="log-probs are not reproduced"):
        audited(policy, tmp_path).check()


@pytest.mark.parametrize(("topic", "unseen"), [("image", 3), ("step", 2)])
def test_what_was_dropped_is_not_recomputed(
    policy: OnnxPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, topic: str, unseen: int
) -> None:
    true = getattr(LogWriter, topic)
    monkeypatch.setattr(LogWriter, topic, lambda log, row: None if row.step == 3 else true(log, row))
    run(policy, tmp_path / "log.mcap")  # decides at steps 0, 3, 6
    found = audited(policy, tmp_path)
    assert found.unseen == unseen
    assert f"{unseen} steps were not recomputed" in found.text()
    assert found.log_prob[policy.policy_id] < 1e-6
    assert found.action[policy.policy_id] < 1e-6


def test_logs_that_do_not_say_which_camera_are_refused(
    policy: OnnxPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = LogWriter.event

    def event(log: LogWriter, kind: str, *arguments: Any, **data: Any) -> None:
        for values in arguments[3:]:
            (values or {}).pop("camera", None)
        true(log, kind, *arguments, **data)

    monkeypatch.setattr(LogWriter, "event", event)
    run(policy, tmp_path / "log.mcap")
    with pytest.raises(UserError, match="does not say by which camera"):
        audited(policy, tmp_path)


def test_it_has_no_shadow(policy: OnnxPolicy) -> None:
    with pytest.raises(UserError, match="neither be a shadow nor have one"):
        check_comparable(policy, policy)


def test_it_is_told_of_exported_and_shown(policy: OnnxPolicy, tmp_path: Path) -> None:
    run(policy, tmp_path / "log.mcap")
    assert policy.policy_id[:12] in info(tmp_path / "log.mcap", read_log(tmp_path / "log.mcap"))
    write_report([tmp_path / "log.mcap"], tmp_path / "report.html")
    assert "1 robot session" in (tmp_path / "report.html").read_text()
    pytest.importorskip("pyarrow")
    assert "camera images stay in the log" in export_logs([tmp_path / "log.mcap"], "lerobot", tmp_path / "set")


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4)])
def test_an_image_comes_back_as_it_was(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    row = compressed_image(Image("front", 1, 2, pixels))
    np.testing.assert_array_equal(pixels_of(row), pixels)
    data = base64.b64decode(row["data"])
    for spoiled in (data[:60], b"x" + data[1:], data.replace(b"IDAT", b"iDAT"), data[:24] + b"\x10" + data[25:]):
        with pytest.raises(UserError, match="did not encode"):
            pixels_of(row | {"data": base64.b64encode(spoiled).decode()})


def test_an_episode_begins_with_a_chunk_of_its_own(policy: OnnxPolicy, tmp_path: Path) -> None:
    robot = SeeingRobot(make_seeing_spec())
    writer = LogWriter(tmp_path / "log.mcap", Session(robot.spec.to_json()))
    options = Options(steps=4, engage_seconds=0.0, deadline=80.0, max_age=80.0, camera="front", instruction="push")
    loop = ControlLoop(robot, policy, writer, options)
    for episode in range(2):
        loop.run(episode, seed=episode)
        time.sleep(0)
    loop.close()
    writer.close()
    assert [found["chunk_step"].tolist() for found in read_log(tmp_path / "log.mcap").episodes] == [[0, 1, 2, 0]] * 2
