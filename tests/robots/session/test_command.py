"""What `gipo-robot run` makes of its options: a limit that is lost on the way to the loop guards nobody."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.runtime.policy import OnnxPolicy
from robots.cli import build_parser, main
from robots.log import read_log
from robots.session.command import SIMULATED, _deadman, _settings
from robots.session.options import Options
from tests.robots.session_process import Arm, Wave


class SimulatedArm(Arm):
    """The same arm, of no world."""

    simulated = True


def settings(*arguments: str, simulated: bool = False) -> Options:
    return _settings(build_parser().parse_args(["run", "--policy", "x", *arguments]), simulated)


def test_every_option_reaches_the_loop(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "steps": 7, "speed": 2.0, "deterministic": True, "end_on_success": True, "end_on_label": True,
        "engage_seconds": 0.5, "deadline": 3.0, "max_age": 4.0, "instruction": "fold", "camera": ("left", "right"),
        "video": "av1", "replan": 3,
    }  # fmt: skip
    flags = ["--deterministic", "--end-on-success", "--end-on-label", f"--deadman={tmp_path / 'pedal'}"]
    numbers = ["--steps=7", "--speed=2", "--engage=.5", "--deadline=3", "--max-age=4", "--replan=3"]
    seen = ["--instruction=fold", "--camera=left", "--camera=right", "--video=av1"]
    found = settings(*flags, *numbers, *seen, simulated=True)
    assert {name: getattr(found, name) for name in given} == given
    assert not found.deadman()
    assert set(given) | {"deadman", "takeover", "quit"} == set(vars(found)), "options of which this test knows nothing"


@pytest.mark.parametrize(("arm", "patience"), [(Arm, 1.0), (SimulatedArm, SIMULATED)])
def test_a_robot_of_the_world_is_not_waited_for_as_a_simulated_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: type, patience: float
) -> None:
    monkeypatch.setattr(OnnxPolicy, "load", lambda *_, **__: Wave(Arm.spec))
    options = [f"--set=calls={tmp_path / 'calls'}", "--set=at=", "--set=event=", "--set=number=0", "--episodes=1"]
    main(["run", "--policy=x", f"--robot={__name__}:{arm.__name__}", f"--log={tmp_path}", "--steps=1", *options])
    (path,) = tmp_path.glob("*.mcap")
    asked = read_log(path).header.settings
    assert (asked["deadline"], asked["max_age"]) == (1.25 * patience, 1.5 * patience)


def test_a_pedal_that_a_clock_ahead_has_touched_is_not_held(tmp_path: Path) -> None:
    pedal = tmp_path / "pedal"
    pedal.touch()
    held = _deadman(str(pedal))
    assert held()
    os.utime(pedal, (time.time() + 60,) * 2)
    assert not held()
