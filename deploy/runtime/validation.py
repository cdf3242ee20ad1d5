"""What a manifest may say: every value is checked, however the manifest was made."""

from collections.abc import Mapping
from dataclasses import fields
from math import prod
from typing import TYPE_CHECKING

from deploy.runtime.fields import (
    check_keys,
    check_names,
    check_numbers,
    check_sha256,
    check_whole,
    is_number,
    is_text,
    refuse,
)
from deploy.runtime.layout import MAX_PICTURE, MAX_PIXELS, Vision
from gipo.common.errors import UserError

if TYPE_CHECKING:
    from deploy.runtime.manifest import Manifest, Normaliser

FAMILIES = {"token": "uniform", "gaussian": "normal"}  # policy family → noise its sampling head takes
PRECISIONS = ("float32", "int8")
DISTANCES = tuple(
    f"{name}_{label}"
    for name in ("kl", "log_prob_difference", "action_difference", "deterministic_action_difference")
    for label in ("mean", "max")
)
MAX_CHUNK, MAX_INSTRUCTION = 1024, 4096
MAX_GOLDEN = 64  # rows; they are run whenever a policy is loaded
MAX_ROUNDING = 1e-3  # beyond it float32 does not describe the policy any more


def check_manifest(m: "Manifest") -> None:
    """Refuse a manifest with a value that is not allowed.

    Raises:
        UserError: naming key, value and what it must be.
    """
    _check_interface(m)
    _check_vision(m.vision)
    _check_provenance(m)
    _check_normaliser(m.normaliser, m.observation_size)
    _check_golden(m)


def _check_interface(m: "Manifest") -> None:
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
            raise UserError(f"manifest.action_low of {name!r} is {low}; it must be below action_high, {high}")
    if not is_number(m.control_rate_hz) or not 0 < m.control_rate_hz <= 100_000:
        raise refuse("control_rate_hz", m.control_rate_hz, "above 0 and at most 100000; export with --rate")
    check_whole("parameters_per_dimension", m.parameters_per_dimension, 2)
    if m.family == "gaussian" and m.parameters_per_dimension != 2:
        raise refuse("parameters_per_dimension", m.parameters_per_dimension, "2 for a gaussian: mean and log-std")


def _check_vision(vision: Vision | None) -> None:
    if vision is None:
        return
    sizes = vision.image
    if not isinstance(sizes, tuple) or len(sizes) != 3:
        raise refuse("vision.image", sizes, "channels, height and width")
    for key, value in (*((f"vision.image[{i}]", size) for i, size in enumerate(sizes)), ("vision.chunk", vision.chunk)):
        check_whole(key, value, 1)
    check_whole("vision.instruction_bytes", vision.instruction_bytes, 1)
    if prod(sizes) > MAX_PIXELS or vision.chunk > MAX_CHUNK or vision.instruction_bytes > MAX_INSTRUCTION:
        allowed = f"at most {MAX_PIXELS} pixels, {MAX_CHUNK} actions and {MAX_INSTRUCTION} bytes"
        raise refuse("vision", vision, allowed)


def _check_provenance(m: "Manifest") -> None:
    check_whole("policy_version", m.policy_version, 0)
    if m.frames is not None:
        check_whole("frames", m.frames, 0)
    if not isinstance(m.task, str) or len(m.task) > 256 or not (m.task == "" or m.task.isprintable()):
        raise refuse("task", m.task, "printable text of at most 256 characters")
    check_sha256("config_hash", m.config_hash)
    for key in ("checkpoint", "parent"):
        if getattr(m, key) is not None:
            check_sha256(key, getattr(m, key))
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


def _check_normaliser(normaliser: "Normaliser | None", size: int) -> None:
    if normaliser is None:
        return
    check_numbers("normaliser.mean", normaliser.mean, size)
    check_numbers("normaliser.scale", normaliser.scale, size)
    if not min(normaliser.scale) > 0:
        raise refuse("normaliser.scale", min(normaliser.scale), "above 0 in every dimension")
    if not is_number(normaliser.bound) or not normaliser.bound > 0:
        raise refuse("normaliser.bound", normaliser.bound, "above 0")
    check_sha256("normaliser.sha256", normaliser.sha256)


def _check_golden(m: "Manifest") -> None:
    rows = m.golden.observation
    if not isinstance(rows, tuple) or not 1 <= len(rows) <= MAX_GOLDEN:
        raise refuse("golden.observation", rows, f"1 to {MAX_GOLDEN} rows")
    for field in fields(m.golden):
        values = getattr(m.golden, field.name)
        if not isinstance(values, tuple) or len(values) != len(rows):
            raise refuse(f"golden.{field.name}", values, f"{len(rows)} rows, as golden.observation")
        size = m.layout.question_size if field.name == "observation" else m.layout.decision_size
        for row in values:
            check_numbers(f"golden.{field.name}", row, size)
    pictures = [] if m.vision is None else [row[-1] for row in rows]
    if not all(number == int(number) and 0 <= number < MAX_PICTURE for number in pictures):
        raise refuse("golden.observation", pictures, f"rows that end with the number of a picture, below {MAX_PICTURE}")
