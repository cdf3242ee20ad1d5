"""The process that encodes: it is replaced when it hangs or ends, is gone with the session, and says what it lacks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.log import Image, LogWriter, Session, read_log
from robots.log.encoding import STARTING, Encoders
from robots.log.video import CODECS, VideoWriter, decode_block, read_pixels
from tests.robots.builders import step_row
from tests.robots.log.test_video import ROOT, SCRIPT, scene

pytest.importorskip("av")


# A session that goes on after Ctrl-C, as one does until its robot is at rest.
INTERRUPTED = """
import os, signal
from robots.log.encoding import Encoders
from tests.robots.log.test_encoding import image
signal.signal(signal.SIGINT, lambda *_: print("heard"))
encoders = Encoders("h264", print)
print(encoders.frame(image(0))[1])
os.killpg(0, signal.SIGINT)  # as a terminal sends it
print(encoders.frame(image(1))[1])
encoders.close()
"""


def image(number: int) -> Image:
    return Image("front", number, number, scene(number), episode=number // 6, step=number % 6)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has asked for, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(process: int) -> bool:
    """Whether a process ends within seconds."""
    until = time.monotonic() + 10
    while alive(process) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(process)


@pytest.mark.timeout(120, method="thread")  # SVT-AV1 can wait for ever, in C, where no signal ends it
@pytest.mark.parametrize("codec", CODECS)
def test_it_gives_what_the_encoder_gives(codec: str) -> None:
    here, there = VideoWriter(codec), Encoders(codec, pytest.fail)
    for number in range(12):
        assert there.frame(image(number)) == here.frame(image(number)), number
    here.close()
    there.close()
    assert not alive(there.process.pid)


@pytest.mark.parametrize(
    ("how", "said"),
    [(signal.SIGSTOP, "did not answer for 0.5 s"), (signal.SIGKILL, "ended")],
)
def test_one_that_hangs_or_ends_is_replaced_and_no_frame_is_lost(how: signal.Signals, said: str) -> None:
    told: list[str] = []
    encoders = Encoders("h264", told.append, patience=0.5)
    films: list[list[bytes]] = [[]]
    for number in range(6):
        if number == 4:
            before = encoders.process.pid
            os.kill(before, how)
            films.append([])
        asked = time.monotonic()
        frame, key = encoders.frame(image(number))
        assert time.monotonic() - asked < STARTING, "more patience than that is for a process that begins"
        assert key == (number in (0, 4)), "another film begins where the process is another"
        films[-1].append(frame)
    encoders.close()
    assert told == [f"the process that encodes h264 {said}; another one goes on with the frame"]
    assert not alive(before)
    pixels = np.concatenate([decode_block(b"".join(film), "h264") for film in films])
    assert np.abs(pixels.astype(int) - np.stack([scene(number) for number in range(6)])).mean() < 8


def test_a_log_goes_on_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, Session("{}"), video="h264")
    assert writer._video is not None
    for number in range(8):
        if number == 4:
            while writer.waiting:
                time.sleep(0.01)
            os.kill(writer._video.process.pid, signal.SIGKILL)
        writer.image(Image("front", number, number, scene(number), episode=0, step=number))
        writer.step(step_row(number))
    assert writer.close().lost == 0
    assert [row["step"] for row, _ in read_pixels(path, {"front"})] == list(range(8))
    log = read_log(path)
    (event,) = [event for event in log.events if event["kind"] == "video"]
    assert event["reason"] == "the process that encodes h264 ended; another one goes on with the frame"


def test_two_in_a_row_are_the_end_of_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), video="h264")
    encoders = writer._video
    assert encoders is not None
    start = encoders._start

    def start_and_stop() -> None:
        start()
        os.kill(encoders.process.pid, signal.SIGSTOP)

    encoders.patience = 0.3
    encoders._socket.settimeout(0.3)
    monkeypatch.setattr(encoders, "_start", start_and_stop)
    os.kill(encoders.process.pid, signal.SIGSTOP)
    writer.image(image(0))
    with pytest.raises(UserError, match=r"two processes in a row that encode h264 did not answer for 0\.3 s"):
        writer.close()
    assert not alive(encoders.process.pid)


def test_one_that_hangs_ends_with_a_session_that_is_killed(tmp_path: Path) -> None:
    command, environ = [sys.executable, SCRIPT, tmp_path / "a.mcap", "100"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        assert b"robots.log.encoding" in Path(f"/proc/{child}/cmdline").read_bytes()
        process.send_signal(signal.SIGKILL)
    assert ended(child)


def test_ctrl_c_ends_no_film() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, env=environ, start_new_session=True
    )
    assert run.stdout.split() == ["True", "heard", "False"], "one key frame: it is the same film"
    assert run.stderr == ""


def test_what_it_lacks_is_said_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="video is 'mpeg'; it must be one of h264, av1"):
        LogWriter(tmp_path / "a.mcap", Session("{}"), video="mpeg")
    (tmp_path / "av.py").write_text("raise ModuleNotFoundError('av')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"video needs PyAV: pip install '\.\[video\]'"):
        LogWriter(tmp_path / "a.mcap", Session("{}"), video="h264")
    assert not (tmp_path / "a.mcap").exists()
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(UserError, match=r"no process can be started that encodes h264: .*No such file"):
        LogWriter(tmp_path / "a.mcap", Session("{}"), video="h264")
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(UserError, match="the process that encodes h264 does not start"):
        LogWriter(tmp_path / "a.mcap", Session("{}"), video="h264")


def test_modules_of_the_working_folder_are_not_run_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("robots", "av", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    encoders = Encoders("h264", pytest.fail)
    assert encoders.frame(image(0))[1]
    encoders.close()
    assert capfd.readouterr() == ("", "")


def test_why_an_encoder_gives_nothing_is_said_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    encoders = Encoders("h264", pytest.fail)
    wide = Image("front", 0, 0, np.zeros((16, 20000, 3), np.uint8), episode=0)
    with pytest.raises(UserError, match=r"ExternalError.*invalid width x height \(20000x16\)"):
        encoders.frame(wide)
    encoders.close()
    assert capfd.readouterr().err == ""


def test_a_log_that_cannot_be_made_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Encoders] = []

    class Kept(Encoders):
        def _start(self) -> None:
            super()._start()
            made.append(self)

    monkeypatch.setattr("robots.log.writer.Encoders", Kept)
    (tmp_path / "a.mcap").write_bytes(b"")
    with pytest.raises(UserError, match="cannot create the log"):
        LogWriter(tmp_path / "a.mcap", Session("{}"), video="h264")
    assert made
    assert not alive(made[0].process.pid)


def test_a_log_that_waits_for_another_process_to_begin_does_not_blame_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), video="h264")
    encoders = writer._video
    assert encoders is not None
    monkeypatch.setattr("robots.log.encoding.BEGIN", "import time; time.sleep(60)")
    encoders.process.kill()
    writer.image(image(0))
    with pytest.raises(UserError, match=r"a.mcap are not written: another process that encodes its images does not"):
        writer.close(timeout=2)
    encoders.process.kill()
    writer._thread.join(10)
    assert not writer._thread.is_alive()
