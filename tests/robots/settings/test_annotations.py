"""Texts as what annotations say: numbers become numbers only where a number is asked for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NewType, Optional, Protocol, TypedDict

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.settings.annotations import arguments, build, convert


class Colour(str, Enum):
    RGB = "rgb"
    BGR = "bgr"


class Turn(int, Enum):
    NONE = 0  # an Enum of numbers has a member that is false
    LEFT = -90


@dataclass
class Camera:
    choices: ClassVar[dict[str, type]] = {}

    width: int | None = None
    colour: Colour = Colour.RGB

    @classmethod
    def get_known_choices(cls) -> dict[str, type]:
        return cls.choices


@dataclass
class Usb(Camera):
    index_or_path: int | Path = 0


Camera.__module__ = "their_cameras.configs"  # beside which others are looked for
Camera.choices["usb"] = Usb


class Gains(TypedDict):
    gain: float


class Bus(Protocol):
    def write(self) -> None: ...


@dataclass
class Lens:
    focus: float
    marks: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("012345678901", str, "012345678901"),
        ("01", Any, "01"),
        ("1e3", str, "1e3"),
        ("true", str, "true"),
        ("null", str, "null"),
        ("[1, 2]", Any, "[1, 2]"),
        ("3", int, 3),
        ("-3", int, -3),
        ("3", float, 3.0),
        (".5", float, 0.5),
        ("1e-3", float, 0.001),
        ("Yes", bool, True),
        ("0", bool, False),
        ("null", float | None, None),
        ("2.5", Optional[float], 2.5),  # noqa: UP045
        ("null", str | None, None),
        ("01", str | None, "01"),
        ("0", int | Path, 0),
        ("/dev/video0", int | Path, Path("/dev/video0")),
        ("012", int | str, "012"),
        ("12", int | str, 12),
        ("12", str | int, 12),
        ("auto", float | str, "auto"),
        ("012", Path | int, Path("012")),
        ("0", Path | int, 0),
        ("~/cal", str | Path, Path("~/cal").expanduser()),
        ("1", bool | int, 1),
        (1, bool | int, 1),
        ("yes", bool | int, True),
        ("1", bool | str, "1"),
        ("no", str | bool, "no"),
        ("false", bool | str, False),
        ("/dev/ttyUSB0", str | list[str], "/dev/ttyUSB0"),
        ("a,b", list[str] | str, "a,b"),
        ('["a,b"]', str | list[str], ["a,b"]),
        ("cal", list[Path] | Path, Path("cal")),
        ("2", list[float] | float, 2.0),
        ("1,2", list[float] | float, [1.0, 2.0]),
        ("bgr", str | Colour, Colour.BGR),
        ("0.10", float | Literal["auto"], 0.1),
        ("5", float | dict[str, float], 5.0),
        ('{"pan": 5}', float | dict[str, float], {"pan": 5.0}),
        ("~/cal", Path, Path("~/cal").expanduser()),
        ("bgr", Colour, Colour.BGR),
        ("BGR", Colour, Colour.BGR),
        ("-90", Turn, Turn.LEFT),
        ("LEFT", Turn, Turn.LEFT),
        ("NONE", Turn, Turn.NONE),
        ("0", Turn, Turn.NONE),
        ("slow", Literal["slow", "fast"], "slow"),
        ("2", Literal[1, 2], 2),
        ("1,2.5", list[float], [1.0, 2.5]),
        ("[1, 2.5]", tuple[float, ...], (1.0, 2.5)),
        ('["a", "01"]', Sequence[str], ["a", "01"]),
        ("a,01", list, ["a", "01"]),
        ("1,x", tuple[int, str], (1, "x")),
        ("1,1,2", set[int], {1, 2}),
        ('{"1": true}', Mapping[int, bool], {1: True}),
        ('{"focus": "2", "marks": [1, 2]}', Lens, Lens(2.0, (1, 2))),
        ({"focus": 2}, Lens | None, Lens(2.0)),
        ('{"front": {"type": "usb", "width": 640}}', dict[str, Camera], {"front": Usb(640)}),
        ({"front": {"type": "usb", "index_or_path": "2"}}, dict[str, Camera], {"front": Usb(index_or_path=2)}),
        ("3", NewType("Count", int), 3),
        ("3", Annotated[int, "a note"], 3),
    ],
)
def test_what_a_text_becomes(text: Any, kind: Any, expected: Any) -> None:
    found = convert(text, kind, "x")
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("fast", float, "a finite number"),
        ("fast", float | None, "a finite number"),
        ("nan", float, "a finite number"),
        ("-inf", float, "a finite number"),
        ("1e999", float, "a finite number"),
        ("", float, "a finite number"),
        (True, float, "a finite number"),
        ("2.5", int, "a whole number"),
        (2.0, int, "a whole number"),
        ("maybe", bool, "true or false"),
        (12, str, r"text \(in quotes, in a file\)"),
        ("", Path, "Path"),
        ("~no_such_user/cal", Path, "Path"),
        ("hsv", Colour, r"one of rgb, bgr \(Colour\)"),
        ("medium", Literal["slow", "fast"], "one of slow, fast"),
        ("fast", int | bool, "a whole number or true or false"),
        ("1,2", tuple[int, int, int], r"tuple\[int, int, int\]"),
        ("{", dict, "dict"),
        ("[1]", dict, "dict"),
        ("{}", list[int], "a whole number"),
        ("[" * 10**5, list, "list"),
        ("3", Lens, "Lens"),
    ],
)
def test_what_is_no_such_thing_names_place_value_and_kind(text: Any, kind: Any, expected: str) -> None:
    with pytest.raises(UserError, match=rf"^x(\[0\])? is .*; it must be {expected}$") as error:
        convert(text, kind, "x")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("[1, x]", list[int], r"x is '\[1, x\]'; it must be list\[int\]"),
        ('[1, "x"]', list[int], r"x\[1\] is 'x'; it must be a whole number"),
        ('{"focus": "near"}', Lens, r"x\.focus is 'near'; it must be a finite number"),
        ("{}", Lens, r"Lens: missing a required argument: 'focus'; its settings are: focus, marks"),
        ('{"focus": 1, "zoom": 2}', Lens, r"x\.zoom is no setting of Lens; its settings are: focus, marks"),
        ("{}", Camera, r"x\.type is None; it must be one of: usb"),
        ('{"type": "no_such"}', Camera, r"x\.type is 'no_such'; it must be one of: usb"),
        ("f", Callable, "x must be a .*Callable, which no text can say"),
        ("[1]", np.ndarray, "x must be a ndarray, which no text can say"),
        ('{"gain": 1}', Gains, "x must be a Gains, which no text can say"),
        ("serial", Bus, "x must be a Bus, which no text can say"),
    ],
)
def test_what_is_wrong_inside_is_named(text: str, kind: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(text, kind, "x")


def test_arguments_of_functions_and_classes() -> None:
    def bare(gain=1, offset=0.5, name="", wait=True, port=None): ...  # type: ignore[no-untyped-def]

    texts = {"gain": "2.5", "offset": "1", "name": "01", "wait": "no", "port": "01"}
    assert arguments(bare, texts, "") == {"gain": 2.5, "offset": 1.0, "name": "01", "wait": False, "port": "01"}

    class Arm:
        def __init__(self, manifest: object, serial: "str", rate: "float" = 1, **more: "Unknown"):  # type: ignore[name-defined]  # noqa: F821
            self.serial = serial

    found = arguments(Arm, {"serial": "012", "rate": "3", "id": "01"}, "--set ", {"manifest": 7})
    assert found == {"manifest": 7, "serial": "012", "rate": 3.0, "id": "01"}
    assert arguments(functools.partial(bare, port="x"), {"gain": "2"}, "") == {"gain": 2}
    with pytest.raises(UserError, match=r"Arm: missing a required argument: 'serial'; its settings are: serial, rate"):
        arguments(Arm, {}, "--set ", {"manifest": 7})
    with pytest.raises(UserError, match="--set speed is no setting of bare; its settings are: gain, offset"):
        arguments(bare, {"speed": "1"}, "--set ")
    with pytest.raises(UserError, match="nothing that can be called"):
        arguments(7, {}, "")  # type: ignore[arg-type]


def test_what_a_class_itself_refuses_comes_through() -> None:
    @dataclass
    class Strict:
        width: int = field(default=0)

        def __post_init__(self) -> None:
            raise KeyError("whatever its author raises")

    with pytest.raises(KeyError, match="whatever"):
        build(Strict, {"width": "3"}, "--set ")


def test_a_subclass_registers_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a name that is not its module's, beside a module that needs what is not there."""
    package = tmp_path / "their_cameras"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "configs.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Config:\n    width: int\n    known = {}\n\n"
        "    @classmethod\n    def get_known_choices(cls):\n        return cls.known\n"
    )
    (package / "depth.py").write_text("import a_library_of_a_device_that_nobody_has\n")
    (package / "realsense.py").write_text(
        "from their_cameras.configs import Config\n\n\nclass RealSense(Config):\n    pass\n\n\n"
        "Config.known['intelrealsense'] = RealSense\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from their_cameras.configs import Config  # type: ignore[import-not-found]

    assert type(convert({"type": "intelrealsense", "width": "640"}, Config, "x")).__name__ == "RealSense"
