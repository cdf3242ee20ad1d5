"""The manifest: everything about a policy that is not its weights, as full-precision JSON inside the artifact."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from deploy.errors import ArtifactError
from deploy.fields import (
    check_keys,
    check_names,
    check_numbers,
    check_sha256,
    check_whole,
    is_number,
    is_text,
    parse_object,
    refuse,
)

SCHEMA = 1  # raised when a manifest of this version cannot be read by older code
FAMILIES = {"token": "uniform", "gaussian": "normal"}  # policy family → noise its sampling head takes
PRECISIONS = ("float32", "int8")
DISTANCES = tuple(
    f"{name}_{label}"
    for name in ("kl", "log_prob_difference", "action_difference", "deterministic_action_difference")
    for label in ("mean", "max")
)
MAX_ROUNDING = 1e-3  # beyond it float32 does not describe the policy any more

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

    Shapes: observation [N, O]; noise, action, deterministic_action, latent, log_prob [N, D].
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
        parameters_per_dimension: P; the graph's `params` output is [B, D, P].
        observation_names: O names, in the order of the observation vector.
        observation_units: O units.
        action_names: D names.
        action_units: D units.
        action_low: D lower bounds, action units.
        action_high: D upper bounds, action units.
        control_rate_hz: rate at which the policy was trained to be asked.
        policy_version: learner version of the weights.
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
        schema: version of this format.

    Raises:
        ArtifactError: naming key, value and fix, when a value is not allowed.
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
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _check_interface(self)
        _check_provenance(self)
        _check_normaliser(self.normaliser, self.observation_size)
        _check_golden(self)

    @property
    def observation_size(self) -> int:
        """O."""
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        """D."""
        return len(self.action_names)

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
            ArtifactError: when the text is no manifest, a key is missing or unknown, or a value is not allowed.
        """
        raw = parse_object(text)
        schema = raw.get("schema")
        if type(schema) is not int or schema < 1:
            raise ArtifactError(f"manifest.schema is {schema!r}; it must be a whole number from 1 to {SCHEMA}")
        if schema > SCHEMA:
            raise ArtifactError(
                f"manifest.schema is {schema}, this gipo reads up to {SCHEMA}; upgrade gipo on this machine"
            )
        check_keys(raw, _keys(cls), "manifest")
        normaliser = raw["normaliser"]
        if normaliser is not None:
            normaliser = Normaliser(**_plain(Normaliser, normaliser, "manifest.normaliser"))
        golden = Golden(**_plain(Golden, raw["golden"], "manifest.golden"))
        return cls(
            **{**{key: _tuples(value) for key, value in raw.items()}, "normaliser": normaliser, "golden": golden}
        )


def _keys(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def _plain(kind: type, raw: Any, where: str) -> dict[str, Any]:
    check_keys(raw, _keys(kind), where)
    return {key: _tuples(value) for key, value in raw.items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_interface(m: Manifest) -> None:
    if not isinstance(m.family, str) or m.family not in FAMILIES:
        raise refuse("family", m.family, f"one of {', '.join(FAMILIES)}")
    check_names("observation_names", m.observation_names, None, unique=True)
    check_names("observation_units", m.observation_units, m.observation_size)
    check_names("action_names", m.action_names, None, unique=True)
    check_names("action_units", m.action_units, m.action_size)
    check_numbers("action_low", m.action_low, m.action_size)
    check_numbers("action_high", m.action_high, m.action_size)
    for name, low, high in zip(m.action_names, m.action_low, m.action_high, strict=True):
        if not low < high:
            raise ArtifactError(f"manifest.action_low of {name!r} is {low}; it must be below action_high, {high}")
    if not is_number(m.control_rate_hz) or not 0 < m.control_rate_hz <= 100_000:
        raise refuse("control_rate_hz", m.control_rate_hz, "above 0 and at most 100000; export with --rate")
    check_whole("parameters_per_dimension", m.parameters_per_dimension, 2)
    if m.family == "gaussian" and m.parameters_per_dimension != 2:
        raise refuse("parameters_per_dimension", m.parameters_per_dimension, "2 for a gaussian: mean and log-std")


def _check_provenance(m: Manifest) -> None:
    check_whole("policy_version", m.policy_version, 0)
    if m.frames is not None:
        check_whole("frames", m.frames, 0)
    if not isinstance(m.task, str) or len(m.task) > 256 or not (m.task == "" or m.task.isprintable()):
        raise refuse("task", m.task, "printable text of at most 256 characters")
    check_sha256("config_hash", m.config_hash)
    if m.parent is not None:
        check_sha256("parent", m.parent)
    if m.precision not in PRECISIONS:
        raise refuse("precision", m.precision, f"one of {', '.join(PRECISIONS)}")
    if not is_number(m.rounding) or not 0 <= m.rounding <= MAX_ROUNDING:
        raise refuse("rounding", m.rounding, f"from 0 to {MAX_ROUNDING}")
    if (m.quantisation is None) != (m.precision == "float32"):
        raise refuse("quantisation", m.quantisation, "the report of an int8 policy, and null for float32")
    if m.quantisation is not None:
        check_keys(m.quantisation, DISTANCES, "manifest.quantisation")
        for key, value in m.quantisation.items():
            check_numbers(f"quantisation.{key}", (value,), 1)
    if not isinstance(m.versions, Mapping) or not all(
        is_text(name) and is_text(version) for name, version in m.versions.items()
    ):
        raise refuse("versions", m.versions, "an object from package to version")
    if not isinstance(m.policy, Mapping):
        raise refuse("policy", m.policy, "an object")


def _check_normaliser(normaliser: Normaliser | None, size: int) -> None:
    if normaliser is None:
        return
    check_numbers("normaliser.mean", normaliser.mean, size)
    check_numbers("normaliser.scale", normaliser.scale, size)
    if not min(normaliser.scale) > 0:
        raise refuse("normaliser.scale", min(normaliser.scale), "above 0 in every dimension")
    if not is_number(normaliser.bound) or not normaliser.bound > 0:
        raise refuse("normaliser.bound", normaliser.bound, "above 0")
    check_sha256("normaliser.sha256", normaliser.sha256)


def _check_golden(m: Manifest) -> None:
    rows = m.golden.observation
    if not isinstance(rows, tuple) or not 1 <= len(rows) <= 1024:
        raise refuse("golden.observation", rows, "1 to 1024 rows")
    for field in fields(Golden):
        values = getattr(m.golden, field.name)
        if not isinstance(values, tuple) or len(values) != len(rows):
            raise refuse(f"golden.{field.name}", values, f"{len(rows)} rows, as golden.observation")
        size = m.observation_size if field.name == "observation" else m.action_size
        for row in values:
            check_numbers(f"golden.{field.name}", row, size)
