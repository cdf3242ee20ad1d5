"""What the numbers of a source mean; only sources that agree go into one store."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from deploy.runtime.manifest import Manifest
from gipo.common.arrays.camera_images import Image
from gipo.common.arrays.precision import alike
from gipo.common.errors import UserError
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
        image: channels, height and width of the images that they saw, of cameras of different sizes those of each;
            None where they saw none.
        instruction_bytes: that they read of an instruction.
        chunk: H, the actions that they decided on at once.
        cameras: names of those that they saw by, where they have names.
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
    image: Image | None = None
    instruction_bytes: int | None = None
    chunk: int | None = None
    cameras: Texts | None = None

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
        seen = {} if manifest.vision is None else asdict(manifest.vision)
        return replace(cls._of(manifest), **{name: value for name, value in seen.items() if value != ()})

    @classmethod
    def _of(cls, owner: RobotSpec | Manifest) -> "Interface":
        found: dict[str, Any] = {field.name: getattr(owner, field.name, None) for field in fields(cls)}
        low, high = (tuple(map(float, bounds)) for bounds in (owner.action_low, owner.action_high))
        return cls(**found | {"action_low": low, "action_high": high, "control_rate_hz": float(owner.control_rate_hz)})

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


def common_interface(stated: Iterable[tuple[str, Interface | None]]) -> Interface:
    """What all sources state, by the names of the sources; one that ends before it says is left out.

    Raises:
        UserError: naming the key that differs, and the two sources; or when none says.
    """
    said = list(stated)
    known = [(name, interface) for name, interface in said if interface is not None]
    if not known:
        raise UserError(f"{said[0][0]} ends before it says whose log it is; there is nothing to ingest")
    for index, (name, interface) in enumerate(known):
        for other_name, other in known[:index]:
            if difference := other.difference(interface):
                raise UserError(f"{other_name} and {name} do not fit together: {difference}; ingest them apart")
    common = known[0][1]
    for _, interface in known[1:]:
        common = common.merged(interface)
    return common
