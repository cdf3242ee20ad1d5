"""Sources fit together when their numbers are the same to float32, and not otherwise."""

from dataclasses import replace

import pytest

from datamodules.ingest.interface import Interface, common_interface
from gipo.common.errors import UserError
from gipo.policies import Spaces

ROBOT = Interface(2, 1, action_low=(-0.35,), action_high=(0.35,), control_rate_hz=50.0)


def test_a_robot_and_the_policy_made_for_it() -> None:
    policy = replace(ROBOT, action_low=(-0.3499999940395355,), action_high=(0.3499999940395355,))
    assert (ROBOT.difference(policy), policy.difference(ROBOT)) == ("", "")
    assert common_interface([("a", ROBOT), ("b", policy)]) == ROBOT


@pytest.mark.parametrize(
    ("key", "value"), [("action_high", (0.3500001,)), ("control_rate_hz", 50.1), ("action_size", 2)]
)
def test_a_true_difference(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"a and b do not fit together: {key} is .* against"):
        common_interface([("a", ROBOT), ("b", replace(ROBOT, **{key: value}))])  # type: ignore[arg-type]


def test_spaces_of_a_policy_have_its_precision() -> None:
    """So those of a spec and those of the checkpoint that was trained for it are equal."""
    assert Spaces(2, (-0.35,), (0.35,)) == Spaces(2, (-0.3499999940395355,), (0.3499999940395355,))
    assert Spaces(2, (-0.35,), (0.35,)) != Spaces(2, (-0.35,), (0.3500001,))
