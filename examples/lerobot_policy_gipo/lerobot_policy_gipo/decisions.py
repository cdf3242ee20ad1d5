"""What a policy decided, one JSON object a line: the first says whose decisions they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.runtime.acting import ActingPolicy, Decision
from gipo.common.errors import UserError
from gipo.common.reading import read_text

HEADER = ("policy_id", "policy_version", "seed", "observation_names", "action_names", "control_rate_hz")
NUMBERS = ("observation", "action", "latent", "log_prob")
COLUMNS = (*NUMBERS, "sampled")
MAX_BYTES = 1 << 30


class DecisionWriter:
    """Appends decisions to a new file, each written out at once.

    Args:
        path: of the file.
        policy: that decides.
        seed: of its noise.

    Raises:
        UserError: when the file is there, or cannot be written.
    """

    def __init__(self, path: Path, policy: ActingPolicy, seed: int):
        try:
            self._file = path.open("x", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UserError(
                f"cannot write decisions to {path}: {error.strerror}; --policy.decisions names another"
            ) from error
        manifest = policy.manifest
        self._write(
            policy_id=policy.policy_id, policy_version=manifest.policy_version, seed=seed,
            observation_names=list(manifest.observation_names), action_names=list(manifest.action_names),
            control_rate_hz=manifest.control_rate_hz,
        )  # fmt: skip

    def write(self, seen: np.ndarray, decision: Decision, sampled: bool) -> None:
        """Write one decision: numbers of float32, which JSON keeps exactly."""
        numbers = {"action": decision.action, "latent": decision.latent, "log_prob": decision.log_prob}
        self._write(observation=seen.tolist(), sampled=sampled, **{key: each.tolist() for key, each in numbers.items()})

    def _write(self, **values: object) -> None:
        self._file.write(json.dumps(values) + "\n")


@dataclass(frozen=True)
class Decisions:
    """N decisions in the order in which they were made.

    Args:
        header: whose they are.
        observation: [N, O] float32, what was seen.
        action: [N, D] float32.
        latent: [N, D] int64 or float32.
        log_prob: [N, D] float32, nats.
        sampled: [N] bool.
    """

    header: dict[str, object]
    observation: np.ndarray
    action: np.ndarray
    latent: np.ndarray
    log_prob: np.ndarray
    sampled: np.ndarray


def read_decisions(path: Path) -> Decisions:
    """Read a file of decisions; a last line that was torn is left out.

    Raises:
        UserError: when it is none, or holds no decision, naming the line that is at fault.
    """
    lines = read_text(path, MAX_BYTES).splitlines()
    if lines and not lines[-1].endswith("}"):
        del lines[-1]
    header, *rows = [_parsed(path, number, line) for number, line in enumerate(lines, 1)] or [{}]
    if not rows:
        raise UserError(f"{path} holds no decision of the policy gipo")
    sizes = {"observation": len(header["observation_names"])}
    for number, row in enumerate(rows, 2):
        for name in NUMBERS:
            _check_numbers(f"{path}, line {number}: {name}", row[name], sizes.get(name, len(header["action_names"])))
    columns = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
    whole = columns["latent"].dtype.kind == "i"
    return Decisions(
        header, columns["observation"].astype(np.float32), columns["action"].astype(np.float32),
        columns["latent"].astype(np.int64 if whole else np.float32), columns["log_prob"].astype(np.float32),
        columns["sampled"].astype(bool),
    )  # fmt: skip


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    """A line: of the first one what it says of the policy, of another a decision."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    needed = HEADER if number == 1 else COLUMNS
    missing = sorted({*needed} - {*found}) if isinstance(found, dict) else needed
    if missing:
        what = "what the policy gipo says of itself" if number == 1 else "a decision of the policy gipo"
        raise UserError(f"{path}, line {number} is not {what}: it lacks {', '.join(missing)}")
    return dict(found)


def _check_numbers(what: str, values: Any, size: int) -> None:
    if not isinstance(values, list) or len(values) != size or any(type(each) not in (int, float) for each in values):
        raise UserError(f"{what} is {values!r:.60}; it must be {size} numbers")
