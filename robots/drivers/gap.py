"""The numbers by which a simulated robot differs from that of training, each within a range of its own."""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, ClassVar

from gipo.common.errors import UserError

Range = tuple[float, float]
OTHERWISE: Range = (0, 1000)  # of fields for which a class names none
VISUAL: Mapping[str, Range] = MappingProxyType(
    {"light": (0, 10), "colour": (0, 1), "shift_x": (-2, 2), "shift_y": (-2, 2)}
)


class WithinRanges:
    """A dataclass of numbers, none of which is made out of its range.

    Raises:
        UserError: naming the field, its value and its range.
    """

    ranges: ClassVar[Mapping[str, Range]] = MappingProxyType({})

    def __post_init__(self) -> None:
        kind: Any = self
        for field in fields(kind):
            low, high = self.ranges.get(field.name, OTHERWISE)
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise UserError(f"the gap's {field.name} is {value!r}; it must be a number from {low} to {high}")
