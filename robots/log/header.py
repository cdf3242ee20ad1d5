"""What every row of a log shares: written as metadata with a digest of its own, and read back."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from mcap.records import Metadata

from deploy.runtime.validation import is_file_name, is_finite, is_printable
from gipo.common.errors import UserError
from robots.log.schema import SCHEMA

SESSION = "gipo.session"

# Of a spec's rows, what follows `observation_` or `action_` → what an entry may be, and that in words.
_ENTRIES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("names", "units"), (is_printable, "texts")),
    **dict.fromkeys(("low", "high"), (is_finite, "numbers")),
    **dict.fromkeys(("rate", "acceleration"), (lambda value: value is None or is_finite(value), "numbers or null")),
}


@dataclass(frozen=True)
class Session:
    """What all rows of a log share: robot, policies, settings.

    Args:
        robot: the robot's spec as JSON.
        manifests: policy_id → manifest as JSON, of the policies that may act or shadow.
        settings: how the session was run, plain data.
        identity: names the log; a label can be attached to this log only.
        created: ISO 8601, UTC.
    """

    robot: str
    manifests: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def metadata(self) -> dict[str, str]:
        """Texts for the container; their digest protects them where the container's CRC is not there yet."""
        texts = {
            "schema": str(SCHEMA),
            "session": self.identity,
            "created": self.created,
            "robot": self.robot,
            "settings": json.dumps(dict(self.settings), sort_keys=True),
            **{f"manifest.{name}": text for name, text in self.manifests.items()},
        }
        return {**texts, "sha256": digest(texts)}


def digest(texts: Mapping[str, str]) -> str:
    """SHA-256 of a map of texts, in the order of its keys, hex."""
    return hashlib.sha256(json.dumps(dict(texts), sort_keys=True).encode()).hexdigest()


def log_path(folder: str | os.PathLike[str], robot: str, session: Session) -> Path:
    """Where the log of a session goes: a file name that sorts by time and never meets another."""
    moment = session.created.split("+")[0].replace("-", "").replace(":", "")
    return Path(folder) / f"{moment}-{robot}-{session.identity[:8]}.mcap"


@dataclass
class Header:
    """What a log says of itself, checked against its digest.

    Args:
        session: identity of the log.
        created: ISO 8601, UTC.
        robot: the robot's spec, plain data.
        settings: how the session was run.
        manifests: policy_id → manifest as JSON.
    """

    session: str
    created: str
    robot: dict[str, Any]
    settings: dict[str, Any]
    manifests: dict[str, str]

    @property
    def turns(self) -> tuple[str, str] | None:
        """The ids of the deployed policy and of the candidate that drive in turns; None where one policy drives."""
        match self.settings.get("turns"):
            case [str(deployed), str(candidate)]:
                return deployed, candidate
        return None

    def of_robot(self, key: str) -> Any:
        """What the robot's spec says under a key.

        Raises:
            UserError: when it says nothing, as in a log that was not written by `gipo-robot`.
        """
        if key not in self.robot:
            raise UserError(f"the log's robot spec has no {key}")
        return self.robot[key]

    def check_rows(self, where: str, columns: Mapping[str, np.ndarray]) -> None:
        """Refuse rows of another robot than the spec's, by their sizes; a spec need not say them.

        Args:
            where: they are, for the message.
            columns: `observation` [T, O] and `action` [T, D], and others.

        Raises:
            UserError: naming both sizes.
        """
        for kind in ("observation", "action"):
            named = next((self.robot[key] for end in _ENTRIES if (key := f"{kind}_{end}") in self.robot), None)
            if named is not None and columns[kind].shape[1:] != (len(named),):
                found = list(columns[kind].shape[1:])
                raise UserError(
                    f"{where}: an {kind} has shape {found}, and the log's robot spec has {len(named)} of {kind}s"
                )


class NewerSchema(UserError):
    """A log of a schema that this version cannot read."""


def parse_header(metadata: Metadata) -> Header:
    """The session metadata of a log.

    Raises:
        NewerSchema: when it is of a later schema.
        UserError: when it is not what the writer wrote.
    """
    texts = dict(metadata.metadata)
    found = texts.pop("sha256", None)
    if metadata.name != SESSION or found != digest(texts):
        raise UserError("the session's metadata do not match their digest")
    schema = texts.get("schema", "")
    if schema.isdecimal() and len(schema) < 10 and int(schema) > SCHEMA:
        raise NewerSchema(f"the log has schema {schema}, this gipo reads up to {SCHEMA}; upgrade gipo")
    try:
        int(schema)
        manifests = {key.removeprefix("manifest."): text for key, text in texts.items() if key.startswith("manifest.")}
        robot, settings = json.loads(texts["robot"]), json.loads(texts["settings"])
        if not isinstance(robot, dict) or not isinstance(settings, dict):
            raise ValueError("JSON objects for robot and settings")
        header = Header(texts["session"], texts["created"], robot, settings, manifests)
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"the session's metadata miss {error}") from error
    _check_robot(robot)
    return header


def _check_robot(robot: Mapping[str, Any]) -> None:
    """Refuse values that no spec of a robot has. One may be absent: the log of another program need not say all.

    Raises:
        UserError: naming the key.
    """
    if "name" in robot and not is_file_name(robot["name"]):
        raise UserError(f"the log's robot spec has name {robot['name']!r:.80}; it must be letters, digits, - and _")
    hertz = robot.get("control_rate_hz", 1)
    if not (is_finite(hertz) and hertz > 0):
        raise UserError(f"the log's robot spec has control_rate_hz {hertz!r:.80}; it must be a number above 0")
    for kind in ("observation", "action"):
        rows = {key: robot[key] for end in _ENTRIES if (key := f"{kind}_{end}") in robot}
        for key, values in rows.items():
            allowed, words = _ENTRIES[key.removeprefix(f"{kind}_")]
            if not isinstance(values, list) or not all(map(allowed, values)):
                raise UserError(f"the log's robot spec has {key} {values!r:.80}; it must be a list of {words}")
        sizes = {key: len(values) for key, values in rows.items()}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{size} of {key}" for key, size in sizes.items())
            raise UserError(f"the log's robot spec has {found}; it must have as many of each")
