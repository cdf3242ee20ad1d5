"""What a log holds: the rows of its channels, and the JSON Schemas by which other tools plot them.

Channels: `step` (one row a control tick), `event` (everything else that happened), `shadow` (what another policy
would have thought of the same tick), `camera` (images), `video` (frames that build on others). Times are nanoseconds:
`wall_ns` since the epoch, and `monotonic_ns` of the clock that paces the loop.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import orjson

from gipo.common.errors import UserError
from gipo.common.transition import LOGGED, Field

SCHEMA = 1  # raised when a log of this version cannot be read by older code
SECTIONS = ("observe", "policy", "gate", "act", "log")  # of a tick, in order
TIMES = ("late", "work", *SECTIONS)  # microseconds: how late a tick began, all its work, and each section


@dataclass(slots=True)
class Step:
    """One control tick, complete: what was seen, chosen, sent, and what came of it.

    Shapes, types, units and meanings are those that `gipo.common.transition.FIELDS` gives for the log.
    """

    episode: int
    step: int
    wall_ns: int
    monotonic_ns: int
    observation: np.ndarray
    latent: np.ndarray
    action: np.ndarray
    sent_action: np.ndarray
    log_prob: np.ndarray
    policy_version: int
    valid: bool
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    gate: tuple[str, ...] = ()
    timing_us: tuple[int, ...] = (0,) * len(TIMES)
    chunk_step: int = 0
    source: str = "policy"
    proposed_action: np.ndarray | None = None
    privileged: np.ndarray | None = None


@dataclass(slots=True)
class Event:
    """Something that happened; `data` depends on `kind`, and `episode` and `step` are −1 outside of one.

    Kinds: episode_start, engage, outcome, takeover, handback, operator, said, stop, reset, dropped, video,
    episode_end, session_end.
    """

    kind: str
    reason: str = ""
    episode: int = -1
    step: int = -1
    wall_ns: int = 0
    monotonic_ns: int = 0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Shadow:
    """What a policy that did not act thought of a tick: the log-prob [D] it gives the acting policy's latent."""

    episode: int
    step: int
    policy_id: str
    policy_version: int
    log_prob: np.ndarray
    deterministic_action: np.ndarray


def encode(row: Any) -> bytes:
    """A row as JSON; arrays as shortest decimals that give the same number back.

    Raises:
        UserError: when it cannot be written as JSON.
    """
    try:
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise UserError(f"a {type(row).__name__} cannot be logged: {error}") from error


def plain(values: Any) -> Any:
    """Anything as JSON that keeps NaN and infinities readable, for the raw command of a stop."""
    if type(values) is np.ndarray and values.dtype.kind in "fiub":
        return [value if np.isfinite(value) else str(value) for value in values.ravel().tolist()[:256]]
    return repr(values)[:256]


def legible(content: Any) -> Any:
    """A text, or plain data with texts, as JSON can hold it: what was no UTF-8 in a name or a message escaped."""
    if isinstance(content, str):
        return content.encode("utf-8", "backslashreplace").decode()
    return {key: legible(value) for key, value in content.items()} if isinstance(content, dict) else content


def json_schemas() -> dict[str, bytes]:
    """The JSON Schema of every channel."""
    properties = {"step": {field.name: _property(field) for field in LOGGED}}
    properties |= {topic: {each.name: _TYPES[each.type] for each in fields(row)} for topic, row in _OTHERS.items()}
    schemas = {topic: _object(f"gipo.{topic}", each) for topic, each in properties.items()}
    frame = {**_IMAGE, "key": _BOOLEAN}
    images = {
        "camera": _object("foxglove.CompressedImage", _IMAGE),
        "video": _object("foxglove.CompressedVideo", frame),
    }
    return schemas | images


def _property(field: Field) -> dict[str, Any]:
    """How JSON holds a field of a step: one value, or an array of them."""
    one = _OF_KIND[field.type_for(whole=False, logged=True).kind]
    if field.choices:
        return {**_TEXT, "enum": list(field.choices)}
    if not field.shape:
        return one
    described = {"description": ", ".join(TIMES)} if field.name == "timing_us" else {}
    kind = ["array", "null"] if field.absent_as or field.silent else "array"
    return {"type": kind, "items": one, **described}


def _object(title: str, properties: dict[str, Any]) -> bytes:
    return orjson.dumps({"title": title, "type": "object", "properties": properties, "required": list(properties)})


_INTEGER, _NUMBER, _BOOLEAN, _TEXT = ({"type": kind} for kind in ("integer", "number", "boolean", "string"))
_NUMBERS = {"type": "array", "items": _NUMBER}
_OF_KIND = {"i": _INTEGER, "f": _NUMBER, "b": _BOOLEAN, "U": _TEXT}  # by numpy's letter of a type
_OTHERS: dict[str, Any] = {"event": Event, "shadow": Shadow}
_TYPES: dict[Any, Any] = {int: _INTEGER, str: _TEXT, np.ndarray: _NUMBERS, dict[str, Any]: {"type": "object"}}
_IMAGE = {
    "timestamp": {"type": "object", "properties": {"sec": _INTEGER, "nsec": _INTEGER}},
    "frame_id": _TEXT,
    "data": {"type": "string", "contentEncoding": "base64"},
    "format": _TEXT,
    **dict.fromkeys(("episode", "step"), _INTEGER),
}
