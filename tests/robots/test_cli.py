"""`gipo-robot` as a person uses it: run, look, check, label, audit; and one line of error for whatever goes wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.cli import main
from robots.log import LogWriter, Session, read_log
from robots.log.labels import labels_path
from robots.session.command import _deadman
from tests.needs import needs_sim
from tests.robots.people.people import FakeOperator

ROOT = Path(__file__).parents[2]
Out = Callable[[], Any]


def say(*arguments: str | Path) -> list[str]:
    return [str(each) for each in arguments]


@pytest.fixture
def copied(session: Path, tmp_path: Path) -> Path:
    """A log that a test may spoil."""
    return Path(shutil.copy(session, tmp_path / "a.mcap"))


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The command exits with 2 after exactly one line of error."""
    assert main(say(*arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("gipo-robot: error: ")
    assert error.count("\n") == 1
    return error


def test_what_a_run_leaves(session: Path, policies: dict[str, Path]) -> None:
    log = read_log(session)
    assert log.integrity.status == "sealed"
    assert [len(episode) for episode in log.episodes] == [60, 60, 60]
    assert all(episode.complete and episode.success is not None for episode in log.episodes)
    assert len(log.header.manifests) == 2
    first = log.episodes[0]
    assert first.policy_id in log.header.manifests
    assert set(first["policy_version"]) == {7}
    assert len(first.shadows) == 60
    assert {row["policy_version"] for row in first.shadows} == {8}
    assert not first["valid"][:19].any()
    assert first["valid"][19:].all()
    goals = {tuple(episode["observation"][0, -3:].tolist()) for episode in log.episodes}
    assert len(goals) == 3
    assert json.loads(log.header.manifests[first.policy_id])["task"] == "reach-v3"


@needs_sim
@pytest.mark.parametrize("family", ["token", "gaussian", "numbered"])
def test_every_log_prob_and_action_is_reproduced(
    policies: dict[str, Path], tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs"
    command = say(
        "run", "--policy", policies[family], "--log", log, "--episodes", "2", "--steps", "40", "--speed", "50"
    )
    assert main([*command, "--set", "action_gain=.6", "--set", "delay=2", "--set", "observation_noise=0.01"]) == 0
    (path,) = log.glob("*.mcap")
    assert main(say("audit", path, "--policies", policies[family].parent)) == 0
    table = capsys.readouterr().out
    row = next(line for line in table.splitlines() if ("…" in line and "e-" in line) or "0.0e+00" in line).split()
    assert float(row[3]) <= 1e-5
    assert float(row[4]) <= 1e-6


@needs_sim
def test_an_episode_is_the_same_whichever_session_runs_it(policies: dict[str, Path], tmp_path: Path) -> None:
    def run(name: str, episodes: int, first: int) -> list[Any]:
        assert main(say(
            "run", "--policy", policies["token"], "--log", tmp_path / name, "--episodes", episodes, "--first", first,
            "--steps", "30", "--speed", "50", "--seed", "5", "--set", "observation_noise=0.01",
        )) == 0  # fmt: skip
        (path,) = (tmp_path / name).glob("*.mcap")
        return list(read_log(path).episodes)

    together, apart = run("together", 3, 0), [*run("one", 1, 0), *run("two", 2, 1)]
    assert [episode.number for episode in apart] == [0, 1, 2]
    for wanted, found in zip(together, apart, strict=True):
        assert found.start == wanted.start
        for name in set(wanted.columns) - {"wall_ns", "monotonic_ns", "timing_us"}:
            assert found[name].tobytes() == wanted[name].tobytes(), name
    assert not np.array_equal(together[0]["observation"], together[1]["observation"])


@needs_sim
@pytest.mark.parametrize("option", [("--operator-set", "strength=.2"), ("--end-on-label",)])
def test_what_is_said_of_a_person_whom_nobody_names_is_refused(
    policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, ...]
) -> None:
    error = fails(capsys, "run", "--policy", policies["token"], "--log", tmp_path / "logs", *option)
    assert f"{option[0]} is of a person who helps, and nobody is named who does; add --operator NAME" in error
    assert not (tmp_path / "logs").exists()


class Unplugged(FakeOperator):
    """An operator whose device cannot be released."""

    def __init__(self) -> None:
        super().__init__()

    def close(self) -> None:
        raise OSError("it is gone")


class Stuck(Unplugged):
    """One whose device is never released."""

    def close(self) -> None:
        time.sleep(600)


@needs_sim
@pytest.mark.parametrize(("kind", "why"), [(Unplugged, "OSError: it is gone"), (Stuck, "it takes more than 0.2 s")])
def test_an_operator_that_does_not_close_keeps_no_run_from_its_end(
    policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    kind: type, why: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("robots.session.runner.CLOSE_SECONDS", 0.2)
    helped = ["--operator", f"{__name__}:{kind.__name__}", "--log", str(tmp_path)]
    command = ["run", "--policy", str(policies["token"]), "--episodes", "1", "--steps", "20", "--speed", "20", *helped]
    assert main(command) == 2
    said = capsys.readouterr()
    assert f"error: the operator's device failed to close: {why}" in said.err
    assert f"log: {tmp_path}" in said.out


def test_audit_of_policies_without_vision_reads_the_log_once(
    session: Path, policies: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_pixels(path: Path, cameras: set[str]) -> None:
        raise AssertionError(f"{path} was gone through again for images that no policy saw")

    monkeypatch.setattr("robots.review.chunks.read_pixels", read_pixels)
    assert main(say("audit", session, "--policies", policies["token"].parent)) == 0


def test_audit_names_an_artifact_that_it_cannot_use(
    session: Path, policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acted = tmp_path / "acted.onnx"
    acted.write_bytes(policies["token"].read_bytes()[:-1])
    shutil.copy(policies["newer"], tmp_path)
    assert main(say("audit", session, "--policies", tmp_path)) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith(f"gipo-robot: note: left out: {acted}: ")
    assert "is unknown; put its artifact into the folder (a checkpoint that was served has none: gipo fit " in error


def test_audit_finds_what_was_changed(
    session: Path, policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = policies["token"].parent
    assert main(say("audit", session, "--policies", folder)) == 0
    log = read_log(session)
    for spoil, expected in (
        ("log_prob", "log-probs are not reproduced"),
        ("policy_id", "is unknown"),
        ("version", "versions"),
    ):
        writer = LogWriter(tmp_path / f"{spoil}.mcap", Session("{}"))
        start = dict(log.episodes[0].event("episode_start")["data"])
        if spoil == "policy_id":
            start["policy_id"] = "0" * 64
        writer.event("episode_start", episode=0, data=start)
        from robots.log import Step

        columns = log.episodes[0].columns
        for index in range(10):
            row = {name: values[index] for name, values in columns.items()}
            row |= {
                "timing_us": tuple(map(int, row["timing_us"])),
                "valid": True,
                "source": "policy",
                "terminated": False,
                "truncated": False,
            }
            row |= {key: int(row[key]) for key in ("step", "wall_ns", "monotonic_ns", "policy_version")}
            row["reward"] = float(row["reward"])
            if spoil == "log_prob" and index == 5:
                row["log_prob"] = row["log_prob"] + np.float32(2e-5)
            if spoil == "version":
                row["policy_version"] = 6
            writer.step(Step(episode=0, **row))
        writer.close()
        assert expected in fails(capsys, "audit", tmp_path / f"{spoil}.mcap", "--policies", folder)
    assert "no artifact in" in fails(capsys, "audit", session, "--policies", tmp_path)
    assert "is no folder" in fails(capsys, "audit", session, "--policies", tmp_path / "none")


def test_info_verify_label(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = copied.read_bytes()
    assert main(say("info", copied)) == 0
    text = capsys.readouterr().out
    for expected in ("sim, 80 Hz", "180, 0 dropped", "task=reach-v3", "engage 3", "sealed"):
        assert expected in text
    assert main(say("label", copied, "--episode", "1", "--success")) == 0
    assert main(say("label", copied, "--episode", "2", "--failure", "--reward", "-1.5")) == 0
    assert [episode.success for episode in read_log(copied).episodes] == [False, True, False]
    assert main(say("label", copied, "--episode", "0", "--reward", "2", "--keep")) == 0  # judges nothing
    assert main(say("info", copied)) == 0
    text = capsys.readouterr().out
    assert ("success (label)" in text, text.count("(label)")) == (True, 2)
    assert main(say("info", copied.parent)) == 0
    text = capsys.readouterr().out
    assert main(say("info", copied, copied)) == 0
    assert capsys.readouterr().out == f"{text}\n\n{text}"
    assert main(say("verify", copied)) == 0
    assert "sealed" in capsys.readouterr().out
    assert copied.read_bytes() == before
    assert labels_path(copied).read_bytes().count(b"\n") == 3
    assert "no episode 9" in fails(capsys, "label", copied, "--episode", "9", "--success")
    assert "no episode 4000001" in fails(capsys, "label", copied, "--episode", "4000001", "--success")
    assert "needs --success" in fails(capsys, "label", copied, "--episode", "0")


def test_a_damaged_log_is_refused_and_quarantined_unaltered(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(copied.read_bytes())
    data[len(data) // 2] ^= 4
    copied.write_bytes(data)
    for command in ("report", "audit", "label"):
        more = {
            "report": ["--out", tmp_path / "x.html"],
            "audit": ["--policies", tmp_path],
            "label": ["--episode", "0", "--success"],
        }
        error = fails(capsys, command, copied, *more[command])
        assert "damaged from byte" in error or "no artifact" in error
    assert main(say("info", copied)) == 0
    assert "damaged at byte" in capsys.readouterr().out
    assert main(say("verify", copied, "--quarantine", tmp_path / "bad")) == 2
    found = capsys.readouterr()
    assert re.search(r"damaged .*bytes behind byte", found.out)
    assert not copied.exists()
    assert (tmp_path / "bad" / "a.mcap").read_bytes() == data


def test_a_torn_log_is_taken_and_its_tail_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = copied.read_bytes()
    copied.write_bytes(whole[: len(whole) * 2 // 3])
    assert main(say("verify", copied)) == 0
    assert re.search(r"torn .*, [\d,]+ bytes behind byte [\d,]+", capsys.readouterr().out)
    assert main(say("info", copied)) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--policy", "none.onnx"], "none.onnx"),
        (["--episodes", "0"], "--episodes"),
        (["--steps", "0"], "steps"),
        (["--robot", "nowhere"], "no robot"),
        (["--set", "x"], "key=value"),
        (["--set", "gain=1"], "no option 'gain'; there are acceleration, action_gain, "),
        (["--set", "env=x"], ", rate, task\n"),
        pytest.param(["--set", "task=reach-v9"], "no MetaWorld task; the nearest: reach-v3", marks=needs_sim),
        pytest.param(["--robot", "gym", "--set", "env=Pendulum-v1"], "made for another robot", marks=needs_sim),
        pytest.param(["--robot", "gym", "--set", "env=Nothing-v1"], "'Nothing-v1': Environment", marks=needs_sim),
        (["--robot", "lerobot"], "--robot lerobot needs --device: LeRobot's name of a robot"),
        (["--require-id", "0" * 64], "required"),
        (["--speed", "nan"], "speed"),
        (["--log", "/dev/null/logs"], "cannot create the log"),
    ],
)
def test_one_line_of_error(
    policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    given = say("run", "--policy", policies["token"], "--log", tmp_path, "--episodes", "1", "--steps", "2", *arguments)
    assert expected in fails(capsys, *given)


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        *((["--deadline", value], "'{}' is no number from 0.1 to 10000") for value in ("0", "0.0", "nan", "inf", "-1")),
        *((["--max-age", value], "'{}' is no number from 0.1 to 10000") for value in ("0", "nan", "")),
        *((["--engage", value], "'{}' is no number from 0 to 60") for value in ("nan", "-1", "61")),
        *((["--speed", value], "'{}' is no number from 0.001 to 1000") for value in ("0", "nan", "inf")),
        *((["--steps", value], "'{}' is no whole number from 1 to 10000000") for value in ("0", "1e2", str(10**9))),
        *((["--episodes", value], "'{}' is no whole number from 1 to 1000000") for value in ("0", "-1", "nan")),
        *((["--seed", value], "'{}' is no whole number from 0 to 2147483647") for value in ("-1", str(2**31))),
        *((["--replan", value], "'{}' is no whole number from 0 to 10000") for value in ("-1", "20000")),
        *(([name, ""], "it is empty") for name in ("--camera", "--deadman", "--shadow", "--require-id", "--log")),
    ],
)
def test_a_number_or_text_that_makes_no_sense(
    capsys: pytest.CaptureFixture[str], arguments: list[str], refused: str
) -> None:
    """Each is refused by its name; none is taken for an option that was not given."""
    option, value = arguments
    found = fails(capsys, "run", "--policy", "any.onnx", *arguments)
    assert found == f"gipo-robot: error: argument {option}: {refused.format(value)}; see gipo-robot run --help\n"


@pytest.mark.parametrize("value", ["nan", "inf", "1e31", "much"])
def test_a_reward_that_is_no_number(capsys: pytest.CaptureFixture[str], value: str) -> None:
    found = fails(capsys, "label", "a.mcap", "--episode", "1", "--reward", value)
    assert f"argument --reward: '{value}' is no number from -1e+30 to 1e+30" in found


@pytest.mark.parametrize("name", ["folder", "pipe", "none", "loop", "x" * 300, "text", "text/below", "/dev/null"])
def test_whatever_is_named_in_place_of_a_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text").write_text("no log and no policy")
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    for command in (
        ["info", name], ["label", name, "--episode", "0", "--success"],
        ["report", name, "--out", "page.html"], ["export", name, "--format", "minari", "--out", "set"],
        ["audit", "text", "--policies", name], ["run", "--policy", name], ["spec", "--policy", name],
    ):  # fmt: skip
        fails(capsys, *command)


@pytest.mark.parametrize("command", ["info", "verify", "report"])
def test_logs_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    (tmp_path / "text.mcap").write_text("hello, I am no log at all\n" * 10)
    (tmp_path / "empty.mcap").write_bytes(b"")
    for name in ("none.mcap", "text.mcap", "empty.mcap"):
        if (command, name) == ("verify", "empty.mcap"):
            continue  # torn before its first byte
        fails(capsys, command, tmp_path / name)


@needs_sim
@pytest.mark.parametrize(("more", "told"), [((), True), (("--deterministic",), False)])
def test_how_far_a_shadow_is_off_in_nats_is_estimated_from_samples_alone(
    policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: bool
) -> None:
    paths = ["--policy", policies["token"], "--shadow", policies["newer"], "--log", tmp_path]
    assert main(say("run", *paths, "--episodes", "1", "--steps", "20", "--speed", "20", *more)) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("shadow: 20 steps, ")]
    assert (" nats" in line) is told
    assert "|Δ action|" in line
    (log,) = tmp_path.glob("*.mcap")
    assert main(say("info", log)) == 0
    (logged,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("shadow ")]
    assert ": 20 steps, " in logged
    assert logged.split("|Δ action| ")[1] == line.split("|Δ action| ")[1]  # as the session said
    assert (" nats" in logged) is told
    assert main(say("report", log, "--out", tmp_path / "report.html")) == 0
    assert logged.partition("…: ")[2] in (tmp_path / "report.html").read_text()


def test_a_shadow_of_another_kind_is_refused(
    policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(capsys, "run", "--policy", policies["token"], "--shadow", policies["gaussian"], "--log", tmp_path)
    assert "cannot score" in error


def test_a_deadman_is_where_it_was_named_wherever_a_driver_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    held = _deadman("pedal")
    Path("pedal").touch()
    monkeypatch.chdir("/")
    assert held()
    (tmp_path / "pedal").unlink()
    assert not held()


def test_help_says_how_often_a_deadman_is_to_be_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = re.search(r"--deadman FILE\s+stop when this file was last touched more than (\S+) s ago: touch it (\w+)",
                     " ".join(capsys.readouterr().out.split()))  # fmt: skip
    assert said
    pedal, longest = tmp_path / "pedal", float(said[1])
    pedal.touch()
    held = _deadman(str(pedal))
    for ago, holds in ((1 / {"ten": 10}[said[2]], True), (longest + 0.01, False)):
        os.utime(pedal, (time.time() - ago,) * 2)
        assert held() is holds


@needs_sim
def test_a_run_that_is_stopped_ends_with_an_error(
    policies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = say(
        "run", "--policy", policies["token"], "--log", tmp_path, "--episodes", "3", "--steps", "50", "--speed", "20"
    )
    assert "episode 0 was stopped: the deadman" in fails(capsys, *command, "--deadman", tmp_path / "pedal")
    (path,) = tmp_path.glob("*.mcap")
    assert read_log(path).integrity.status == "sealed"


def start(policies: dict[str, Path], folder: Path, *more: str) -> "subprocess.Popen[str]":
    command = say(
        sys.executable,
        "-m",
        "robots.cli",
        "run",
        "--policy",
        policies["token"],
        "--log",
        folder,
        "--episodes",
        "9",
        *more,
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not any(map(has_steps, folder.glob("*.mcap"))):
        time.sleep(0.05)
    return process


def has_steps(path: Path) -> bool:
    """The log is opened before the arm is built; signals of these tests are for an episode."""
    try:
        return any(len(episode) for episode in read_log(path).episodes)
    except UserError:  # it was only just created
        return False


@needs_sim
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_in_good_order(policies: dict[str, Path], tmp_path: Path, number: signal.Signals) -> None:
    process = start(policies, tmp_path)
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert error == f"gipo-robot: ended by {number.name}; the robot is stopped and the log whole\n"
    assert f"ended by {number.name}" in out
    (path,) = tmp_path.glob("*.mcap")
    log = read_log(path)
    assert log.integrity.status == "sealed"
    last = log.episodes[-1]
    assert last.event("episode_end")["reason"] == number.name
    assert last.transitions()["next_truncated"][-1]


@needs_sim
def test_a_driver_that_hangs_for_ever_does_not_keep_the_process(policies: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "hanging_robot.py").write_text(
        "import time\n"
        "from robots.drivers.sim import SimRobot\n\n\n"
        "class Hanging(SimRobot):\n"
        "    def __init__(self):\n"
        "        super().__init__('reach-v3', realtime=False)\n\n"
        "    def act(self, action):\n"
        "        if self._env.curr_path_length > 20:\n"
        "            time.sleep(1e6)\n"
        "        return super().act(action)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = say(sys.executable, "-m", "robots.cli", "run", "--policy", policies["token"], "--log", tmp_path / "logs")
    done = subprocess.run(
        [*command, "--robot", "hanging_robot:Hanging"], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 2
    assert "act takes" in done.stderr
    assert "still hangs" in done.stderr
    (path,) = (tmp_path / "logs").glob("*.mcap")
    log = read_log(path)
    assert "act takes" in next(event["reason"] for event in log.events if event["kind"] == "stop")


@needs_sim
def test_sigkill_leaves_a_log_that_reads(policies: dict[str, Path], tmp_path: Path) -> None:
    process = start(policies, tmp_path)
    process.kill()
    process.communicate()
    (path,) = tmp_path.glob("*.mcap")
    log = read_log(path)
    assert log.integrity.status == "torn"
    assert log.episodes
    assert not log.episodes[-1].complete
    assert main(say("audit", path, "--policies", policies["token"].parent)) == 0
