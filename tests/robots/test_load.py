"""Robots of a user's own: their settings, and what goes wrong while they are made."""

from pathlib import Path
from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.load import load_robot
from tests.robots.fakes import FakeRobot

ARM = """
from tests.robots.fakes import FakeRobot


class Arm(FakeRobot):
    def __init__(self, serial_number: str, id=None, rate: float = 1.0, home: list[float] = (), fault=""):
        super().__init__()
        self.given = (serial_number, id, rate, home)
        if fault == "library":
            import json
            json.loads("no json")
        if fault == "exit":
            raise SystemExit(0)
        if fault:
            raise KeyError(fault)
"""


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"arm_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(ARM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:Arm"


def load(name: str, *settings: str) -> Any:
    return load_robot(name, None, settings)  # type: ignore[arg-type]


def test_a_serial_number_keeps_its_zeros(arm: str) -> None:
    robot = load(arm, "serial_number=012345678901", "id=01", "rate=30", "home=[1, 2]")
    assert isinstance(robot, FakeRobot)
    assert robot.given == ("012345678901", "01", 30.0, [1.0, 2.0])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rate=fast", "^--set rate is 'fast'; it must be a finite number$"),
        ("rate=nan", "^--set rate is 'nan'; it must be a finite number$"),
        ("fault=port", r"^--robot .*:Arm cannot be made: KeyError in __init__ \(.*arm_of_.*\.py:\d+\): 'port'$"),
        ("fault=library", r"cannot be made: JSONDecodeError in __init__ \(.*arm_of_.*\.py:11\): Expecting value"),
        ("fault=exit", r"cannot be made: SystemExit in __init__ \(.*arm_of_.*\.py:13\): 0$"),
    ],
)
def test_what_goes_wrong_names_the_place(arm: str, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(arm, "serial_number=1", setting)


def test_a_module_that_exits_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_script_without_a_guard.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"there is no robot 'a_script_without_a_guard:Arm' \(SystemExit: 0\)"):
        load("a_script_without_a_guard:Arm")


def test_a_module_that_fails_when_it_is_imported_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "an_arm_of_no_rate.py").write_text(
        "from tests.robots.builders import make_spec\n\n\nclass Arm:\n    spec = make_spec(control_rate_hz=0)\n"
    )
    (tmp_path / "an_arm_without_a_bus.py").write_text("import no_such_bus\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"control_rate_hz is 0; .*\); it fails in \S+ \(\S+\.py:\d+\)$"):
        load("an_arm_of_no_rate:Arm")
    with pytest.raises(UserError, match=r"No module named 'no_such_bus'\); .*\(\S*an_arm_without_a_bus\.py:1\)$"):
        load("an_arm_without_a_bus:Arm")
    with pytest.raises(UserError, match=r"No module named 'no_such_arm'\); name sim, gym, .*"):
        load("no_such_arm:Arm")


DOCUMENTED = """
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from tests.robots.fakes import FakeRobot


class Mode(Enum):
    FAST = "f"


@dataclass
class Camera:
    width: int = 0


class Arm(FakeRobot):
    def __init__(
        self, serial_number, rate: float, wait: bool, device: int | str, calibration_dir: Path, mode: Mode,
        home: list[float], limits: dict, camera: Camera, gain=1.0,
        limit: float | None = 3.0, pace: Literal["slow"] = "",
    ):
        super().__init__()
        self.given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
"""


def test_settings_are_what_the_table_in_the_docs_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "documented_arm.py").write_text(DOCUMENTED)
    monkeypatch.syspath_prepend(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "robots.md").read_text(encoding="utf-8")
    table = text.partition("## Settings of a robot")[2]
    settings = ["serial_number=012345678901", "gain=2", "rate=30", "wait=no", "device=012", "rate=null", "mode=fast"]
    for setting in (*settings, "calibration_dir=~/cal", "home=[0, 1.5]", 'limits={"pan": 5}', "camera.width=640"):
        assert f"`{setting}`" in table
    given = load(
        "documented_arm:Arm", "serial_number=012345678901", "gain=2", "rate=30", "wait=no", "device=012", "limit=null",
        "calibration_dir=~/cal", "mode=FAST", "home=0,1.5", 'limits={"pan": 5}', "camera.width=640", "pace=slow",
    ).given  # fmt: skip
    assert given["camera"].width == 640
    assert given["mode"].name == "FAST"
    assert {key: value for key, value in given.items() if key not in ("camera", "mode")} == {
        "serial_number": "012345678901", "gain": 2.0, "rate": 30.0, "wait": False, "device": "012", "limit": None,
        "calibration_dir": Path("~/cal").expanduser(), "home": [0.0, 1.5], "limits": {"pan": 5}, "pace": "slow",
    }  # fmt: skip
