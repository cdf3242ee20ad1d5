"""What the numbers of a source mean; only sources that agree go into one store."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.common.precision import alike
from robots.spec import RobotSpec

NUMBERS = ("action_low", "action_high", "control_rate_hz")
Texts = tuple[str, ...]
Row = tuple[float, ...]


@dataclass(frozen=True)
class Interface:
    """Names, units, bounds and rate of O observations and D actions; None where a source does not say.

    Args:
        observation_size: O.
        action_size: D.
        observation_names: O names.
        observation_units: O units.
        action_names: D names.
        action_units: D units.
        action_low: D lower bounds, action units.
        action_high: D upper bounds, action units.
        control_rate_hz: of the control loop.
        family: of the behaviour policies, `token` or `gaussian`.
        parameters_per_dimension: P of their distributions; the number of bins of tokens.
    """

    observation_size: int
    action_size: int
    observation_names: Texts | None = None
    observation_units: Texts | None = None
    action_names: Texts | None = None
    action_units: Texts | None = None
    action_low: Row | None = None
    action_high: Row | None = None
    control_rate_hz: float | None = None
    family: str | None = None
    parameters_per_dimension: int | None = None

    @classmethod
    def of_spec(cls, raw: Mapping[str, Any]) -> "Interface":
        """What a robot's spec, as plain data, says.

        Raises:
            UserError: when it is no spec.
        """
        return cls._of(RobotSpec.from_json(json.dumps(dict(raw))))

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> "Interface":
        """What the manifest of an artifact says of its policy."""
        return replace(
            cls._of(manifest),
            family=manifest.family,
            parameters_per_dimension=manifest.parameters_per_dimension,
        )

    @classmethod
    def from_data(cls, raw: Mapping[str, Any]) -> "Interface":
        """Take back what `asdict` and JSON made of one."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return cls(**values)

    @classmethod
    def _of(cls, owner: RobotSpec | Manifest) -> "Interface":
        return cls(
            owner.observation_size,
            owner.action_size,
            owner.observation_names,
            owner.observation_units,
            owner.action_names,
            owner.action_units,
            tuple(map(float, owner.action_low)),
            tuple(map(float, owner.action_high)),
            float(owner.control_rate_hz),
        )

    def difference(self, other: "Interface") -> str:
        """The first key that both state, and state differently, in words; empty when there is none."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine is None or theirs is None or mine == theirs:
                continue
            if field.name not in NUMBERS or not alike(mine, theirs):
                return f"{field.name} is {mine!r:.200} against {theirs!r:.200}"
        return ""

    def merged(self, other: "Interface") -> "Interface":
        """What either of two that do not differ states."""
        stated = {field.name: getattr(other, field.name) for field in fields(self) if getattr(self, field.name) is None}
        return replace(self, **stated)


def common_interface(stated: Iterable[tuple[str, Interface]]) -> Interface:
    """What all sources state, by the names of the sources.

    Raises:
        UserError: naming the key that differs, and the two sources.
    """
    known = list(stated)
    for index, (name, interface) in enumerate(known):
        for other_name, other in known[:index]:
            if difference := other.difference(interface):
                raise UserError(f"{other_name} and {name} do not fit together: {difference}; ingest them apart")
    common = known[0][1]
    for _, interface in known[1:]:
        common = common.merged(interface)
    return common
