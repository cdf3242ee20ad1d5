"""The manifest: everything about a policy that is not its weights, as full-precision JSON inside the artifact."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from deploy.runtime.fields import check_keys, parse_object
from deploy.runtime.layout import Layout, Vision
from deploy.runtime.validation import FAMILIES, check_manifest
from gipo.common.errors import UserError

SCHEMA = 3  # raised when a manifest of this version cannot be read by older code

Row = tuple[float, ...]


@dataclass(frozen=True)
class Normaliser:
    """Observation normaliser folded to float32: clip((x − mean) / scale, ±bound).

    Args:
        mean: [O] observation units.
        scale: [O] observation units, positive.
        bound: clamp of the standardised value.
        sha256: of the little-endian float32 bytes of `mean` then `scale`, hex; the graph's must match.
    """

    mean: Row
    scale: Row
    bound: float
    sha256: str


@dataclass(frozen=True)
class Golden:
    """N inputs and the outputs they must give; replayed before a policy may act.

    Shapes: observation [N, O], with vision [N, O + 1]: the state, and the number of the picture that `Layout.rows`
    draws; noise, action, deterministic_action, latent, log_prob [N, K], K = D for a policy without vision.
    """

    observation: tuple[Row, ...]
    noise: tuple[Row, ...]
    action: tuple[Row, ...]
    deterministic_action: tuple[Row, ...]
    latent: tuple[Row, ...]
    log_prob: tuple[Row, ...]


@dataclass(frozen=True)
class Manifest:
    """What travels with the weights.

    Args:
        family: `token` (categorical over bins) or `gaussian`; the graph's noise is uniform [0, 1) or standard normal.
        parameters_per_dimension: P; the graph's `params` output is [B, D, P], or [B, H, D, P] of chunks.
        observation_names: O names, in the order of the observation vector.
        observation_units: O units.
        action_names: D names.
        action_units: D units.
        action_low: D lower bounds, action units.
        action_high: D upper bounds, action units.
        control_rate_hz: rate at which the policy was trained to be asked.
        policy_version: learner version of the weights.
        checkpoint: id of the checkpoint the artifact was exported from, if that has one.
        parent: policy_id of the artifact whose logs this policy was post-trained on, if any.
        task: what it was trained for, free text.
        frames: environment frames it was trained on, if known.
        config_hash: SHA-256 of the training configuration, hex.
        precision: `float32`, or `int8` (weights and activations of the matrix products).
        rounding: largest error of float32 in the distribution parameters, measured against float64 when exporting; no
            two machines agree better than that.
        normaliser: the observation normaliser inside the graph, if the policy has one.
        quantisation: how far int8 moved from the float policy, if it is int8.
        versions: package → version that wrote the artifact.
        policy: the training side's description of the policy.
        golden: golden vectors.
        vision: the image, the instruction and the chunks of a vision-language-action policy; None for other policies.
        schema: version of this format.

    Raises:
        UserError: naming key, value and fix, when a value is not allowed.
    """

    family: str
    parameters_per_dimension: int
    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    action_low: Row
    action_high: Row
    control_rate_hz: float
    policy_version: int
    checkpoint: str | None
    parent: str | None
    task: str
    frames: int | None
    config_hash: str
    precision: str
    rounding: float
    normaliser: Normaliser | None
    quantisation: Mapping[str, float] | None
    versions: Mapping[str, str]
    policy: Mapping[str, Any]
    golden: Golden
    vision: Vision | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        check_manifest(self)

    @property
    def observation_size(self) -> int:
        """O."""
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        """D."""
        return len(self.action_names)

    @property
    def layout(self) -> Layout:
        """How observations and decisions lie in the graph."""
        return Layout(self.observation_size, self.action_size, self.vision)

    @property
    def noise(self) -> str:
        """`uniform` in [0, 1) or standard `normal`: what the graph's `noise` input must be drawn from."""
        return FAMILIES[self.family]

    def to_json(self) -> str:
        """Canonical JSON; every float64 and float32 value survives the round trip exactly."""
        return json.dumps(asdict(self), allow_nan=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and validate.

        Raises:
            UserError: when the text is no manifest, a key is missing or unknown, or a value is not allowed.
        """
        raw = parse_object(text)
        schema = raw.get("schema")
        if type(schema) is not int or schema < 1:
            raise UserError(f"manifest.schema is {schema!r}; it must be a whole number from 1 to {SCHEMA}")
        if schema > SCHEMA:
            raise UserError(
                f"manifest.schema is {schema}, this gipo reads up to {SCHEMA}; upgrade gipo on this machine"
            )
        if schema == 1:
            raw = {"checkpoint": None, **raw}  # checkpoints had no ids then
        if schema < 3:
            raw = {"vision": None, **raw}  # nor was there any
        check_keys(raw, _keys(cls), "manifest")
        normaliser = raw["normaliser"]
        if normaliser is not None:
            normaliser = Normaliser(**_plain(Normaliser, normaliser, "manifest.normaliser"))
        vision = raw["vision"]
        if vision is not None:
            vision = Vision(**_plain(Vision, vision, "manifest.vision"))
        golden = Golden(**_plain(Golden, raw["golden"], "manifest.golden"))
        parsed = {"normaliser": normaliser, "vision": vision, "golden": golden}
        return cls(**{**{key: _tuples(value) for key, value in raw.items()}, **parsed})


def _keys(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def _plain(kind: type, raw: Any, where: str) -> dict[str, Any]:
    check_keys(raw, _keys(kind), where)
    return {key: _tuples(value) for key, value in raw.items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
