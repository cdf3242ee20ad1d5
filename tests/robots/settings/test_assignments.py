"""`--set`: texts by their names, dotted ones within each other."""

from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.settings.assignments import merged, parse_settings


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["serial_number=012345678901", "id=01"], {"serial_number": "012345678901", "id": "01"}),
        (["a=", "b=x=y", "c={}"], {"a": "", "b": "x=y", "c": "{}"}),
        (["a=1", "a=2"], {"a": "2"}),
        (["c.front.width=640", "c.front.type=usb", "c.wrist.fps=30"],
         {"c": {"front": {"width": "640", "type": "usb"}, "wrist": {"fps": "30"}}}),
        (["c.front-left.0.fps=30"], {"c": {"front-left": {"0": {"fps": "30"}}}}),
        (['c={"front": {"width": 320}}', "c.front.width=640"], {"c": {"front": {"width": "640"}}}),
        (["c.front.width=640", 'c={"front": {"fps": 30}}'], {"c": {"front": {"width": "640", "fps": 30}}}),
    ],
)  # fmt: skip
def test_settings(texts: list[str], expected: dict[str, Any]) -> None:
    assert parse_settings(texts) == expected


@pytest.mark.parametrize("text", ["a", "=1", "a b=1", "a..b=1", ".a=1", ""])
def test_settings_refused(text: str) -> None:
    with pytest.raises(UserError, match="key=value"):
        parse_settings([text])


@pytest.mark.parametrize("texts", [["a=1", "a.b=2"], ["a.b=2", "a=1"], ["a.b=2", "a.b.c=3"]])
def test_a_value_and_settings_below_it(texts: list[str]) -> None:
    with pytest.raises(UserError, match=r"^--set a(\.b)? is '\d', and settings below it are given too"):
        parse_settings(texts)


def test_what_is_above_counts() -> None:
    below = {"port": "/dev/ttyACM0", "cameras": {"front": {"width": 320, "fps": 30}}}
    above = {"port": "/dev/ttyACM1", "cameras": {"front": {"width": "640"}}}
    assert merged(below, above) == {"port": "/dev/ttyACM1", "cameras": {"front": {"width": "640", "fps": 30}}}
