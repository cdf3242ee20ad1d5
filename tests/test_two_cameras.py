"""Two cameras in one policy: simulated, exported, run, served, audited, ingested and learned from, each by its name.

Once of one size, and once of different sizes, each through an encoder of its own.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchrl.envs import EnvBase, check_env_specs

from datamodules.ingest import IngestOptions, ingest
from datamodules.offline import OfflineDataModule
from datamodules.replay.logs import Logs
from datamodules.replay.values import log_ratios
from datamodules.vla import ToyVLA
from deploy.export.artifact import export
from deploy.runtime.manifest import SCHEMA, Manifest
from deploy.runtime.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.common.arrays.camera_images import joint
from gipo.common.errors import UserError
from gipo.common.simulators.toy import CAMERAS, INSTRUCTION, pictures
from gipo.vla.observations import VLASpaces, encode_instructions
from gipo.vla.policies import VLAGaussianPolicy
from gipo.vla.tiny import TinyVLANetworks
from robots.cli import main as robot
from robots.decider import Decider
from robots.drivers import toy
from robots.log import Image, LogWriter, read_log
from robots.review.audit import audit
from robots.session.options import Options
from tests.deploy.test_deploy_serving import asking, serving
from tests.offline import fit_args
from tests.sight import Seeing, make_seeing, rows_seen

pytestmark = pytest.mark.usefixtures("no_plot")
TASK = ToyVLA(shown="two_images", max_steps=12)
UNLIKE = ToyVLA(shown="two_sizes", max_steps=12)
IMAGES: dict[str, Any] = {TASK.shown: (6, 16, 16), UNLIKE.shown: ((3, 16, 16), (3, 12, 8))}


@pytest.fixture(scope="module", params=[TASK, UNLIKE], ids=lambda task: task.shown)
def task(request: pytest.FixtureRequest) -> ToyVLA:
    found: ToyVLA = request.param
    return found


@pytest.fixture(scope="module")
def seeing(task: ToyVLA, tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return make_seeing(tmp_path_factory.mktemp("two"), task=task)


def test_what_a_policy_is_built_for(task: ToyVLA) -> None:
    check_env_specs(task.make(3, 0))
    spaces = task.spaces(task.make(2, 0))
    assert spaces == VLASpaces(IMAGES[task.shown], 2, (-1.0, -1.0), (1.0, 1.0), 4, cameras=CAMERAS)


def test_cameras_of_different_sizes_show_the_same() -> None:
    alike, unlike = (each.make(2, 0).reset()["observation", "image"] for each in (TASK, UNLIKE))
    spaces = UNLIKE.spaces(UNLIKE.make(2, 0))
    assert unlike.shape == (2, *spaces.image_shape) == (2, 3 * 16 * 16 + 3 * 12 * 8)
    front, side = spaces.apart(unlike)
    assert (front.shape, side.shape) == ((2, 3, 16, 16), (2, 3, 12, 8))
    torch.testing.assert_close(front, alike[:, :3], rtol=0, atol=0)
    torch.testing.assert_close(spaces.together([front, side]), unlike, rtol=0, atol=0)
    brightest = [image.sum(1)[0].amax(0).argmax() / image.shape[-1] for image in (alike[:, 3:], side)]
    assert abs(float(brightest[0] - brightest[1])) < 0.15, "across the picture"


def test_each_camera_shows_one_axis() -> None:
    targets, still = np.array([[0.3, 0.2], [0.3, -0.4], [-0.1, 0.2]]), np.zeros((3, 2))
    shown = pictures(dict.fromkeys(CAMERAS, (16, 16)), targets, still)
    np.testing.assert_array_equal(shown["front"][0], shown["front"][1])
    np.testing.assert_array_equal(shown["side"][0], shown["side"][2])
    assert not np.array_equal(shown["side"][0], shown["side"][1])
    assert not np.array_equal(shown["front"][0], shown["front"][2])


def left_after_learning(cameras: tuple[str, ...], side: tuple[int, int] = (16, 16)) -> np.ndarray:
    """Share of the variance of targets, along each axis, that a policy of these cameras misses on new ones."""
    torch.manual_seed(0)
    sizes = {"front": (16, 16), "side": side}
    image = joint([(3, *sizes[camera]) for camera in cameras])
    spaces = replace(TASK.spaces(TASK.make(1, 0)), image=image, cameras=cameras)
    policy = VLAGaussianPolicy(spaces, network=lambda s, o: TinyVLANetworks(s, o, 32), squash=False)
    targets = np.random.default_rng(0).uniform(-0.5, 0.5, (256, 2)).astype(np.float32)
    images = pictures(sizes, targets, np.zeros_like(targets))
    seen = {
        "image": spaces.together([torch.from_numpy(images[camera]).movedim(-1, -3) for camera in cameras]),
        "state": torch.zeros(256, 2),
        "instruction": encode_instructions([INSTRUCTION]).expand(256, -1),
    }
    wanted, optimizer = torch.from_numpy(targets), torch.optim.Adam(policy.actor_parameters(), 3e-3)
    for _ in range(100):
        mean = policy.params({name: value[:128] for name, value in seen.items()})[..., 0, :, 0]
        optimizer.zero_grad()
        (mean - wanted[:128]).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        mean = policy.params({name: value[128:] for name, value in seen.items()})[..., 0, :, 0]
    error: np.ndarray = ((mean - wanted[128:]).square().mean(0) / wanted[128:].var(0)).numpy()
    return error


def test_two_cameras_show_what_one_cannot() -> None:
    assert (left_after_learning(CAMERAS) < 0.1).all()
    assert (left_after_learning(CAMERAS, side=(12, 8)) < 0.1).all()
    along, other = left_after_learning(("front",))
    assert along < 0.1
    assert other > 0.8


def test_names_their_order_and_their_sizes_are_in_the_manifest(seeing: Seeing, task: ToyVLA) -> None:
    policy = OnnxPolicy.load(seeing.artifact)
    vision = policy.manifest.vision
    assert vision is not None
    shape = (16, 16, 3) if task is TASK else (12, 8, 3)
    assert (vision.cameras, vision.image, vision.shapes) == (CAMERAS, IMAGES[task.shown], ((16, 16, 3), shape))
    front, side = np.full((16, 16, 3), 10, np.uint8), np.full(shape, 200, np.uint8)
    row = policy.row(np.zeros(2), {"side": side, "front": front, "wrist": front}, INSTRUCTION)
    np.testing.assert_array_equal(row[2:-128], np.repeat([10, 200], [front.size, side.size]))
    with pytest.raises(ValueError, match="sees the camera 'side', and there is no image of it; of: front, wrist"):
        policy.row(np.zeros(2), {"front": front, "wrist": side}, INSTRUCTION)
    for wrong, what in ((side[:8, :8], "(8, 8, 3)"), (side / 255, f"{shape} float64")):
        with pytest.raises(ValueError, match=re.escape(f"'side' is {what}; it must be {shape} uint8")):
            policy.row(np.zeros(2), {"front": front, "side": wrong}, INSTRUCTION)
    if task is UNLIKE:
        with pytest.raises(ValueError, match="different sizes; give the image of each by its name"):
            policy.row(np.zeros(2), front, INSTRUCTION)
    else:
        both = np.concatenate([front, side], -1)
        np.testing.assert_array_equal(row, policy.row(np.zeros(2), both, INSTRUCTION))


def test_a_manifest_of_before_names_no_camera(seeing: Seeing, task: ToyVLA) -> None:
    raw = json.loads(OnnxPolicy.load(seeing.artifact).manifest.to_json())
    assert raw["schema"] == SCHEMA
    if task is UNLIKE:
        for image in (raw["vision"]["image"][:1], [*raw["vision"]["image"], [3, 8, 8]]):
            vision = raw["vision"] | {"image": image}
            with pytest.raises(UserError, match="of as many channels each"):
                Manifest.from_json(json.dumps(raw | {"vision": vision}))
        for image in ([[3, 16, 16], 3], [[3, 16], [3, 8]], []):
            with pytest.raises(UserError, match="channels, height and width, or those of each camera"):
                Manifest.from_json(json.dumps(raw | {"vision": raw["vision"] | {"image": image}}))
        return
    del raw["vision"]["cameras"]
    found = Manifest.from_json(json.dumps(raw | {"schema": 3})).vision
    assert found is not None
    assert found.cameras == ()
    with pytest.raises(UserError, match=r"manifest\.vision\.cameras is missing"):
        Manifest.from_json(json.dumps(raw))
    raw["vision"]["cameras"] = ["a", "b", "c", "d"]
    with pytest.raises(UserError, match="of as many channels each"):
        Manifest.from_json(json.dumps(raw))


@pytest.mark.parametrize("camera", ["front", ("side", "front"), ("front", "wrist")])
def test_other_cameras_than_the_policy_names_are_refused(camera: str | tuple[str, ...], seeing: Seeing) -> None:
    with pytest.raises(UserError, match="sees the cameras front, side, in this order, and is to be given"):
        Decider(OnnxPolicy.load(seeing.artifact), Options(instruction=INSTRUCTION, camera=camera))


def test_the_toy_robot_says_which_cameras_it_has(seeing: Seeing) -> None:
    manifest = OnnxPolicy.load(seeing.artifact).manifest
    assert manifest.vision is not None
    assert set(toy.robot(manifest, light=0.5)._cameras) == set(CAMERAS)
    wrist = replace(manifest, vision=replace(manifest.vision, cameras=("front", "wrist")))
    with pytest.raises(UserError, match=r"has the cameras front, side; the policy sees by front, wrist"):
        toy.robot(wrist)
    with pytest.raises(UserError, match=r"^the toy robot has no option 'dark'; there are .*light"):
        toy.robot(manifest, dark=1)


def test_a_policy_of_one_camera_takes_one() -> None:
    with pytest.raises(UserError, match="sees one camera, and is to be given front, side; name one of them"):
        Options(camera=CAMERAS).cameras()


@pytest.mark.parametrize("video", ["", "h264"])
def test_its_log_is_audited_and_gives_back_what_each_camera_saw(video: str, seeing: Seeing, tmp_path: Path) -> None:
    if video:
        pytest.importorskip("av", reason="the extra `video`")
    log = seeing.log(tmp_path / "log.mcap", episodes=2, video=video) if video else seeing.logs[0]
    policy = OnnxPolicy.load(seeing.artifact)
    found = audit([log], {policy.policy_id: policy})
    assert not found.unseen
    assert bool(found.drift) == bool(video)
    found.check()
    store = ingest([log], IngestOptions(policies=seeing.folder, workers=1, audit=1.0), progress=False)
    assert store.facts.interface.cameras == CAMERAS
    assert store.facts.audit.steps == store.facts.steps
    assert store.album is not None
    row = 0
    for episode in read_log(log).episodes if not video else ():
        seen = [rows_seen(log, episode.number, camera) for camera in CAMERAS]
        for step in episode["step"].tolist():
            for number, each in zip(store.frames["picture"][row].numpy(), seen, strict=True):
                np.testing.assert_array_equal(store.album[[number]][0], each[step])
            row += 1
    logs = Logs([str(log)], IngestOptions(policies=seeing.folder, workers=1, audit=1.0), None, 0)
    acted = policy_from(load_checkpoint(seeing.checkpoint))
    frames = logs.frames(acted, True)
    assert logs.spaces == acted.spaces
    x = log_ratios(acted, frames, logs.seen)[frames["valid"]]
    assert x.abs().max() < (0.5 if video else 1e-4)


def test_an_image_of_one_camera_alone_is_no_decision(seeing: Seeing, tmp_path: Path) -> None:
    policy = OnnxPolicy.load(seeing.artifact)
    kept = LogWriter.image
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogWriter, "image", lambda self, row: (row.camera, row.step) == ("side", 4) or kept(self, row))
        log = seeing.log(tmp_path / "lost.mcap", episodes=1)
    assert audit([log], {policy.policy_id: policy}).unseen == 4
    store = ingest([log], IngestOptions(policies=seeing.folder, workers=1, audit=1.0), progress=False)
    assert store.frames["picture"][4].tolist()[1] == -1
    assert store.facts.audit.steps == store.facts.steps - 4


@pytest.mark.parametrize("video", ["", "h264"])
def test_an_image_of_another_size_counts_as_lost(video: str, seeing: Seeing, task: ToyVLA, tmp_path: Path) -> None:
    """As where a camera fails, and the robot is stopped: what was seen until then is learned from."""
    if video:
        pytest.importorskip("av", reason="the extra `video`")
    kept = LogWriter.image

    def grown(self: LogWriter, row: Image) -> None:
        last = (row.camera, row.step) == ("side", 8)
        kept(self, row._replace(pixels=np.repeat(row.pixels, 4, 0)) if last else row)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogWriter, "image", grown)
        log = seeing.log(tmp_path / "grown.mcap", episodes=1, video=video)
    options = IngestOptions(policies=seeing.folder, workers=1, audit=0 if video else 1)
    store = ingest([log], options, progress=False)
    height, width = (16, 16) if task is TASK else (12, 8)
    said = f"1 of its images count as lost: they are ({4 * height}, {width}, 3), where ({height}, {width}, 3) is said"
    assert [note for note in store.facts.notes if said in note]
    for side, row in ((store.frames, 8), (store.frames["next"], 7)):
        assert (side["picture"][:, 1] < 0).nonzero().flatten().tolist() == [row]
    logs = Logs([str(log)], options, None, 0)
    frames = logs.frames(policy_from(load_checkpoint(seeing.checkpoint)), True)
    assert len(frames) == 2
    for side in (frames, frames["next"]):
        logs.seen(side["observation"])


def test_a_policy_is_evaluated_by_the_cameras_of_its_logs(seeing: Seeing, task: ToyVLA) -> None:
    options = IngestOptions(policies=seeing.folder, workers=1)

    def checked(evaluated: ToyVLA) -> None:
        data = OfflineDataModule([str(log) for log in seeing.logs], ingest=options, task=evaluated)
        try:
            data.check_evaluation()
        finally:
            data.teardown("fit")

    checked(replace(task, max_steps=16))
    other = UNLIKE if task is TASK else TASK
    with pytest.raises(UserError, match=r"data.task=ToyVLA cannot evaluate a policy for these logs: image .* in the"):
        checked(other)
    with pytest.raises(UserError, match=r"decision \(2, 2\) there, and \(4, 2\) in the logs"):
        checked(replace(task, chunk=2))
    with pytest.raises(UserError, match=r"cameras \('side', 'front'\) there, and \('front', 'side'\) in the logs"):
        checked(Turned(shown=task.shown))


class Turned(ToyVLA):
    """Its cameras stand in the other order."""

    def spaces(self, env: EnvBase) -> VLASpaces:
        return replace(super().spaces(env), cameras=CAMERAS[::-1])


def test_a_server_is_given_both(seeing: Seeing) -> None:
    local = OnnxPolicy.load(seeing.artifact)
    assert local.manifest.vision is not None
    rng, shapes = np.random.default_rng(0), dict(zip(CAMERAS, local.manifest.vision.shapes, strict=True))
    images = {camera: rng.integers(0, 256, shape, np.uint8) for camera, shape in shapes.items()}
    with serving(local) as server, asking(server.address) as remote:
        row = remote.row(np.zeros(2), images, INSTRUCTION)
        one, other = (each.act(row, np.random.default_rng(0)) for each in (local, remote))
    np.testing.assert_array_equal(one.latent, other.latent)
    np.testing.assert_array_equal(one.log_prob, other.log_prob)


def test_from_the_simulator_to_post_training(task: ToyVLA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage by its command, as a person would type it."""
    monkeypatch.chdir(tmp_path)
    small = {
        "data.task.shown": task.shown, "data.total_frames": 16, "data.frames_per_iteration": 16, "data.rounds": 1,
        "data.batch": 16, "data.collector.num_envs": 4, "data.evaluation.num_envs": 2, "data.evaluation.episodes": 2,
        "data.collector.workers": 0, "trainer.default_root_dir": "run",
    }  # fmt: skip
    main(["fit", "--config=toy_vla.yaml", *(f"--{name}={value}" for name, value in small.items())])
    export("run/checkpoints/last.ckpt", "two.onnx", rate=20.0, observations=16)
    command = ["run", "--robot", "robots.drivers.toy:robot", "--policy", "two.onnx", "--instruction", INSTRUCTION]
    command += ["--speed", "50", "--episodes", "2", "--steps", "8", "--deadline", "9999", "--max-age", "9999"]
    assert robot([*command, "--camera", "front", "--camera", "side", "--log", "logs"]) == 0
    (log,) = (tmp_path / "logs").iterdir()
    assert robot(["audit", str(log), "--policies", "."]) == 0
    main(fit_args(
        tmp_path / "post", log, config="post_train.yaml", model__init_from="run/checkpoints/last.ckpt",
        model__critic_warmup=1, data__batch=4, data__iterations=2, data__ingest__policies=".",
    ))  # fmt: skip
    after = policy_from(load_checkpoint(tmp_path / "post" / "checkpoints" / "last.ckpt"))
    assert (after.spaces.image, after.spaces.cameras) == (IMAGES[task.shown], CAMERAS)
