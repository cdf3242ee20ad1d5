"""What a log says of its robot: of the kinds that a spec has, also where another program wrote it."""

import json
from typing import Any

import pytest
from mcap.records import Metadata

from gipo.common.errors import UserError
from robots.drivers.sim import make_spec
from robots.log.header import SESSION, Header, Session, parse_header


def header(**changes: Any) -> Header:
    """The header of a log whose robot's spec has these values in place of its own."""
    robot = json.loads(make_spec(rate=2.0).to_json()) | changes
    return parse_header(Metadata(SESSION, Session(json.dumps(robot)).metadata()))


def test_a_spec_comes_back() -> None:
    assert header().robot == json.loads(make_spec(rate=2.0).to_json())


def test_the_robot_of_another_program_need_not_say_all() -> None:
    text = json.dumps({"name": "theirs", "action_names": ["x"]})
    found = parse_header(Metadata(SESSION, Session(text).metadata()))
    assert found.robot["action_names"] == ["x"]
    with pytest.raises(UserError, match="has no control_rate_hz"):
        found.of_robot("control_rate_hz")


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("name", "../../escaped/x", "letters, digits"),
        ("name", None, "letters, digits"),
        ("control_rate_hz", "80", "a number above 0"),
        ("control_rate_hz", 0, "a number above 0"),
        ("control_rate_hz", float("inf"), "a number above 0"),
        ("action_names", "abcd", "a list of texts"),
        ("action_units", [1, 2, 3, 4], "a list of texts"),
        ("action_low", ["x"] * 4, "a list of numbers"),
        ("action_high", {"x": 1}, "a list of numbers"),
        ("action_rate", [[1.0]] * 4, "a list of numbers or null"),
        ("observation_low", [None] * 39, "a list of numbers"),
        ("action_rate", [1.0], "as many of each"),
        ("observation_names", ["x"], "as many of each"),
    ],
)
def test_what_no_spec_has_is_refused_by_its_key(key: str, value: Any, must: str) -> None:
    with pytest.raises(UserError, match=f"the log's robot spec has .*{key}.*; it must .*{must}"):
        header(**{key: value})
