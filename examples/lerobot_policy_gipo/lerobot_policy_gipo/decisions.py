"""What a policy decided, one JSON object a line: the first says whose decisions they are."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.runtime.acting import ActingPolicy, Decision
from gipo.common.errors import UserError

HEADER = ("policy_id", "policy_version", "seed", "observation_names", "action_names", "control_rate_hz")
COLUMNS = ("observation", "action", "latent", "log_prob", "sampled")


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
        UserError: when it is none, or holds no decision.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in (lines if lines and lines[-1].endswith("}") else lines[:-1])]
        of = json.loads(header)
        columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        if missing := {*HEADER, *COLUMNS} - {*of, *columns}:
            raise KeyError(f"lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} holds no decisions of the policy gipo ({type(error).__name__} {error})") from error
    whole = columns["latent"].dtype.kind == "i"
    return Decisions(
        of, columns["observation"].astype(np.float32), columns["action"].astype(np.float32),
        columns["latent"].astype(np.int64 if whole else np.float32), columns["log_prob"].astype(np.float32),
        columns["sampled"].astype(bool),
    )  # fmt: skip
