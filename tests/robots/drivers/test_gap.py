"""Gaps of all simulated robots: every number has a range, and is refused beyond it by name."""

from dataclasses import fields

import pytest

from gipo.common.errors import UserError
from robots.drivers.gap import OTHERWISE, WithinRanges
from robots.drivers.sim import RealityGap
from robots.drivers.sim_camera import SeenGap
from robots.drivers.toy import ToyGap


@pytest.mark.parametrize("kind", [RealityGap, SeenGap, ToyGap])
def test_each_field_takes_its_range_and_no_more(kind: type[WithinRanges]) -> None:
    assert set(kind.ranges) <= {field.name for field in fields(kind)}  # type: ignore[arg-type]
    kind()
    for field in fields(kind):  # type: ignore[arg-type]
        low, high = kind.ranges.get(field.name, OTHERWISE)
        for value in (low, high):
            kind(**{field.name: value})
        for value in (low - 1, high + 1, float("nan"), True, "1"):
            with pytest.raises(UserError, match=rf"the gap's {field.name} is .*; it must be a number from {low} to "):
                kind(**{field.name: value})


def test_a_camera_has_the_same_ranges_on_every_robot() -> None:
    shared = {"light", "colour", "shift_x", "shift_y"}
    assert {name: SeenGap.ranges[name] for name in shared} == {name: ToyGap.ranges[name] for name in shared}
    assert ToyGap.ranges["shift_x"] == (-2, 2)
