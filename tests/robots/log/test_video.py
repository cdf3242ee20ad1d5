"""Cameras as video: frames come back near what they were, a torn log keeps those before, nothing odd is believed."""

import base64
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.log import Image, LogWriter, Session, pixels_of, read_images, verify
from robots.log.images import CHANNELS, image_row
from robots.log.scan import TORN, Scanner
from robots.log.scheduling import threads
from robots.log.video import CODECS, KEY_EVERY, VideoWriter, decode_block, fits, read_pixels
from tests.robots.builders import step_row
from tests.robots.log.test_log import mutate

pytest.importorskip("av")
SCRIPT = Path(__file__).with_name("filming_process.py")
ROOT = Path(__file__).parents[3]


def scene(number: int, size: int = 32) -> np.ndarray:
    """A smooth picture that moves."""
    rows, columns = np.mgrid[0:size, 0:size]
    waves = [128 + 90 * np.sin((columns + 2 * number) / 9), 128 + 90 * np.cos((rows - number) / 7), 0 * rows + 60]
    return np.stack(waves, -1).astype(np.uint8)


def film(path: Path, codec: str, count: int = 40, split: int = 25) -> Path:
    """Two cameras, one of which sees every other tick, and depth; the second episode begins at `split`."""
    writer = LogWriter(path, Session('{"name": "fake"}'), video=codec)
    for number in range(count):
        place = {"episode": int(number >= split), "step": number % split}
        writer.image(Image("front", number, number, scene(number), **place))
        if number % 2 == 0:
            writer.image(Image("wrist", number, number, scene(3 * number, 48), **place))
            writer.image(Image("depth", number, number, np.full((8, 8), 1000 + number, np.uint16), **place))
        writer.step(step_row(number))
    writer.close()
    return path


# Of an encoder in this process: SVT-AV1 can wait for ever, in C, where no signal ends it.
ENDED = pytest.mark.timeout(120, method="thread")


@ENDED
@pytest.mark.parametrize("codec", CODECS)
def test_no_encoder_goes_before_the_control_loop(codec: str) -> None:
    """SVT-AV1 takes the highest real-time priority where root lets it, for the caller too."""
    writer = VideoWriter(codec)
    for number in range(3):
        writer.frame(Image("front", number, number, scene(number)))
    # Mesa's threads, of a simulator that drew in this process, are SCHED_BATCH, which goes before nothing either.
    found = {os.sched_getscheduler(thread) for thread in threads()}
    writer.close()
    assert found <= {os.SCHED_OTHER, os.SCHED_BATCH}


@pytest.mark.parametrize("codec", CODECS)
def test_every_frame_comes_back_near_what_it_was(tmp_path: Path, codec: str) -> None:
    path = film(tmp_path / "a.mcap", codec)
    seen: dict[str, list[int]] = {"front": [], "wrist": [], "depth": []}
    for row, pixels in read_pixels(path, {"front", "wrist", "depth"}):
        camera, number = row["frame_id"], row["timestamp"]["nsec"]
        seen[camera].append(number)
        if camera == "depth":
            np.testing.assert_array_equal(pixels, np.full((8, 8), 1000 + number), "depth is kept without loss")
            continue
        true = scene(number) if camera == "front" else scene(3 * number, 48)
        assert np.abs(pixels.astype(int) - true).mean() < 8, (camera, number)
    assert seen == {"front": list(range(40)), "wrist": list(range(0, 40, 2)), "depth": list(range(0, 40, 2))}


def test_an_episode_begins_with_a_key_frame_and_none_is_far(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mcap", "h264")
    keys = [row["timestamp"]["nsec"] for row in read_images(path) if row["frame_id"] == "front" and row["key"]]
    assert {0, 25} <= set(keys)
    assert np.diff([*keys, 40]).max() <= KEY_EVERY


def test_a_torn_log_keeps_the_frames_before_the_cut(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mcap", "h264", count=400, split=500)
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    assert verify(torn).status == TORN
    frames = [pixels for _, pixels in read_pixels(torn, {"front"})]
    assert 50 < len(frames) < 400
    for ours, theirs in zip(frames, (pixels for _, pixels in read_pixels(whole, {"front"})), strict=False):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("pixels", "can"),
    [
        (scene(0), True), (scene(0)[:31], False), (scene(0)[:14, :14], False), (scene(0)[..., :1], False),
        (scene(0).astype(np.uint16), False), (b"\xff\xd8\xff", False),
    ],
)  # fmt: skip
def test_what_is_no_frame_stays_a_file(pixels: np.ndarray | bytes, can: bool) -> None:
    assert fits(Image("front", 0, 0, pixels)) == can


def test_a_camera_may_change_its_size(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), video="h264")
    for number, size in enumerate((32, 32, 48, 48)):
        writer.image(Image("front", number, number, scene(number, size)))
    writer.close()
    shapes = [pixels.shape[0] for _, pixels in read_pixels(tmp_path / "a.mcap", {"front"})]
    assert shapes == [32, 32, 48, 48]


def test_codecs_and_what_they_need_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="video is 'mpeg'; it must be one of h264, av1"):
        VideoWriter("mpeg")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"video needs PyAV: pip install '\.\[video\]'"):
        VideoWriter("h264")


def test_other_tools_are_told_what_a_frame_is(tmp_path: Path) -> None:
    with open(film(tmp_path / "a.mcap", "h264"), "rb") as file:
        rows = [(topic, data) for block in Scanner(file).blocks() for topic, data in block if topic in CHANNELS]
    (first, *_) = [image_row(data) for topic, data in rows if topic == "video"]
    assert (first["format"], first["key"], first["frame_id"]) == ("h264", True, "front")
    assert base64.b64decode(first["data"]).startswith(b"\0\0\0\1"), "Annex B, with its parameter sets"
    assert {topic for topic, data in rows if image_row(data)["frame_id"] == "depth"} == {"camera"}
    with pytest.raises(UserError, match="did not encode"):
        pixels_of(first)


def block(codec: str) -> bytes:
    """A key frame and nine more."""
    writer = VideoWriter(codec)
    frames = [writer.frame(Image("front", 0, 0, scene(number)))[0] for number in range(10)]
    writer.close()
    return b"".join(frames)


def misread(codec: str, seeds: range) -> None:
    """Every mutant of a block is pixels of the right kind, or is refused."""
    whole, refused = block(codec), 0
    for seed in seeds:
        try:
            pixels = decode_block(mutate(whole, random.Random(seed)), codec)
            assert (pixels.dtype, pixels.ndim) == (np.uint8, 4)
        except UserError:
            refused += 1
    assert refused


@ENDED
@pytest.mark.parametrize("codec", CODECS)
def test_mutated_videos_are_decoded_or_refused(codec: str) -> None:
    misread(codec, range(25))


@pytest.mark.campaign
@pytest.mark.parametrize("codec", CODECS)
def test_1000_mutated_videos_are_decoded_or_refused(codec: str) -> None:
    misread(codec, range(1000))


def killed(path: Path, chance: random.Random) -> None:
    """A process that films is killed; its log has the frames up to the last second."""
    command, environ = [sys.executable, SCRIPT, path, "100"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(1 + chance.uniform(0, 1.5))
        moment = time.monotonic_ns()
        process.send_signal(signal.SIGKILL)
    assert verify(path).status == TORN
    found = [row["step"] for row, _ in read_pixels(path, {"front"})]
    assert found == [row["step"] for row in read_images(path) if row["frame_id"] == "front"]
    assert found == list(range(len(found)))
    assert len(found) > 1
    times = [row["timestamp"]["sec"] * 10**9 + row["timestamp"]["nsec"] for row in read_images(path)]
    assert moment - times[-1] < 1.5e9, "a second, and what a busy machine adds"


def test_sigkill_keeps_the_frames(tmp_path: Path) -> None:
    killed(tmp_path / "a.mcap", random.Random(0))


@pytest.mark.campaign
def test_20_sigkills_keep_the_frames(tmp_path: Path) -> None:
    for seed in range(20):
        killed(tmp_path / f"{seed}.mcap", random.Random(seed))
