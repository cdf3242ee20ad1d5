"""The manifest: everything about a policy that is not its weights, as full-precision JSON inside the artifact."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from deploy.runtime.layout import MAX_PICTURE, Layout, Vision
from deploy.runtime.normaliser import Normaliser
from deploy.runtime.validation import (
    check_bounds,
    check_keys,
    check_names,
    check_numbers,
    check_one_of,
    check_sha256,
    check_whole,
    is_number,
    is_text,
    parse_object,
    require,
    tuples,
)
from gipo.common.errors import UserError
from gipo.common.transition import MAX_CONTROL_RATE

SCHEMA = 5  # raised when a manifest of this version cannot be read by older code

FAMILIES = {"token": "uniform", "gaussian": "normal"}  # policy family → noise its sampling head takes
PRECISIONS = ("float32", "int8")
DISTANCE_NAMES = ("kl", "log_prob_difference", "action_difference", "deterministic_action_difference")
DISTANCES = tuple(f"{name}_{label}" for name in DISTANCE_NAMES for label in ("mean", "max"))
MAX_GOLDEN = 64  # rows; they are run whenever a policy is loaded
MAX_ROUNDING = 1e-3  # beyond it float32 does not describe the policy any more

Row = tuple[float, ...]


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

    def check(self, layout: Layout) -> None:
        """Refuse vectors that do not fit a policy's layout.

        Raises:
            UserError: naming the value and what it must be.
        """
        rows = self.observation
        good = isinstance(rows, tuple) and 1 <= len(rows) <= MAX_GOLDEN
        require(good, "golden.observation", rows, f"1 to {MAX_GOLDEN} rows")
        for name in _keys(Golden):
            values = getattr(self, name)
            good = isinstance(values, tuple) and len(values) == len(rows)
            require(good, f"golden.{name}", values, f"{len(rows)} rows, as golden.observation")
            size = layout.question_size if name == "observation" else layout.decision_size
            for row in values:
                check_numbers(f"golden.{name}", row, size)
        pictures = [] if layout.vision is None else [row[-1] for row in rows]
        good = all(number == int(number) and 0 <= number < MAX_PICTURE for number in pictures)
        allowed = f"rows that end with the number of a picture, below {MAX_PICTURE}"
        require(good, "golden.observation", pictures, allowed)


@dataclass(frozen=True)
class Manifest:
    """All that an artifact says of its policy, beside the weights.

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
        self._check_interface()
        if self.vision is not None:
            self.vision.check()
        self._check_provenance()
        self._check_numerics()
        if self.normaliser is not None:
            self.normaliser.check(self.observation_size)
        self.golden.check(self.layout)

    def _check_interface(self) -> None:
        check_one_of("family", self.family, FAMILIES)
        for key in ("observation", "action"):
            check_names(key, getattr(self, f"{key}_names"), getattr(self, f"{key}_units"))
        check_bounds("action", self.action_names, self.action_low, self.action_high)
        rate, parameters = self.control_rate_hz, self.parameters_per_dimension
        good = is_number(rate) and 0 < rate <= MAX_CONTROL_RATE
        require(good, "control_rate_hz", rate, f"above 0 and at most {MAX_CONTROL_RATE}; export with --rate")
        check_whole("parameters_per_dimension", parameters, 2)
        good = self.family != "gaussian" or parameters == 2
        require(good, "parameters_per_dimension", parameters, "2 for a gaussian: mean and log-std")

    def _check_provenance(self) -> None:
        check_whole("policy_version", self.policy_version, 0)
        if self.frames is not None:
            check_whole("frames", self.frames, 0)
        good = self.task == "" or (isinstance(self.task, str) and len(self.task) <= 256 and self.task.isprintable())
        require(good, "task", self.task, "printable text of at most 256 characters")
        check_sha256("config_hash", self.config_hash)
        for key in ("checkpoint", "parent"):
            if getattr(self, key) is not None:
                check_sha256(key, getattr(self, key))
        known = self.versions
        good = isinstance(known, Mapping) and all(is_text(name) and is_text(found) for name, found in known.items())
        require(good, "versions", known, "an object from package to version")
        require(isinstance(self.policy, Mapping), "policy", self.policy, "an object")

    def _check_numerics(self) -> None:
        check_one_of("precision", self.precision, PRECISIONS)
        good = is_number(self.rounding) and 0 <= self.rounding <= MAX_ROUNDING
        require(good, "rounding", self.rounding, f"from 0 to {MAX_ROUNDING}")
        good = (self.quantisation is None) == (self.precision == "float32")
        require(good, "quantisation", self.quantisation, "the report of an int8 policy, and null for float32")
        if self.quantisation is not None:
            check_keys(self.quantisation, DISTANCES, "manifest.quantisation")
            for key, value in self.quantisation.items():
                check_numbers(f"quantisation.{key}", (value,), 1)

    @property
    def observation_size(self) -> int:
        """O, the numbers of an observation without images."""
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        """D, the numbers of one action."""
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
        """The manifest in a text of JSON, of this schema or an older one.

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
        if schema < 4 and isinstance(raw.get("vision"), dict):
            raw["vision"] = {"cameras": [], **raw["vision"]}  # there was one, of any name
        check_keys(raw, _keys(cls), "manifest")
        parts = {
            key: raw[key] if raw[key] is None and kind is not Golden else _part(kind, raw[key], f"manifest.{key}")
            for key, kind in (("normaliser", Normaliser), ("vision", Vision), ("golden", Golden))
        }
        return cls(**{key: tuples(value) for key, value in raw.items()} | parts)


def _keys(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _part(kind: type, raw: Any, where: str) -> Any:
    check_keys(raw, _keys(kind), where)
    return kind(**{key: tuples(value) for key, value in raw.items()})
