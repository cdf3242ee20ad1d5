"""The logs of a run: ingested when first asked for, completed for the policy that is to learn from them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from datamodules.ingest import IngestOptions, Interface, Store, ingest
from datamodules.ingest.store import FACTS
from datamodules.options import refuse_no_share
from datamodules.replay.behaviour import BehaviourOptions, complete
from datamodules.replay.decisions import decisions_of
from datamodules.replay.ring import worth_keeping
from datamodules.replay.sight import Sight
from datamodules.replay.values import Seen, as_kept
from deploy.runtime.validation import tuples
from gipo.common.checkpoint_head import LearnedLog, TrainedOn
from gipo.common.errors import UserError
from gipo.policies import Policy, Spaces
from gipo.vla.observations import INSTRUCTION_BYTES, VLASpaces

LOGS_SHARE, MIN_ESS = 0.5, 0.02  # defaults of a run that has logs
NOTES = 12  # that are told
ROUNDING = 1e-4  # of a dimension's range: how far beyond its bounds an action still counts as at them
NAMES = ("observation_names", "observation_units", "action_names", "action_units", "control_rate_hz")


def refuse_idle(
    logs: object, logs_share: float, min_ess: float, ingest: IngestOptions, behaviour: BehaviourOptions | None
) -> None:
    """Refuse what says how to learn from logs, other than the defaults, where a run collects and has no logs.

    Or a `min_ess` that is no share, before logs are read.

    Raises:
        UserError: naming the options.
    """
    refuse_no_share("data.", {"min_ess": min_ess})
    given = {
        "logs_share": logs_share != LOGS_SHARE,
        "min_ess": min_ess != MIN_ESS,
        "ingest": ingest != IngestOptions(),
        "behaviour": behaviour is not None,
    }
    idle = [f"data.{name}" for name, is_given in given.items() if is_given]
    if logs is None and idle:
        raise UserError(f"{', '.join(idle)} say how to learn from logs; name them with data.logs, or leave these out")


class Logs:
    """Sources of stale transitions.

    Args:
        sources: files or folders: MCAP logs of gipo-robot, LeRobot v3 and Minari datasets.
        options: how they are checked and converted.
        behaviour: model of who acted, for sources that hold no log-probs.
        seed: of that model.
        action_low: lower bounds of an action, for sources that do not say them.
        action_high: upper bounds of an action.
        chunk: actions that a policy is to decide on at once, for sources of images where nobody did.
        successes_only: learn from episodes that succeeded alone.
    """

    def __init__(
        self,
        sources: str | Sequence[str],
        options: IngestOptions,
        behaviour: BehaviourOptions | None,
        seed: int,
        action_low: Sequence[float] | None = None,
        action_high: Sequence[float] | None = None,
        chunk: int | None = None,
        successes_only: bool = False,
    ):
        self.sources = [sources] if isinstance(sources, str) else list(sources)
        if not self.sources:
            raise UserError("data.logs names no source")
        self._options, self._behaviour, self._seed = options, behaviour, seed
        if chunk is not None and chunk < 1:
            raise UserError(f"data.chunk must be at least 1, got {chunk}")
        if (action_low is None) != (action_high is None):
            raise UserError("data.action_low and data.action_high go together; give both or neither")
        self._low, self._high, self._chunk = action_low, action_high, chunk
        self._successes_only = successes_only
        self._of_policy: tuple[Sequence[float] | None, Sequence[float] | None] = None, None
        self._frames: TensorDictBase | None = None
        self.seen: Seen = as_kept  # makes of observations what a policy takes; known with the first `frames`

    @cached_property
    def store(self) -> Store:
        """The converted sources; how they were taken is told on the terminal."""
        store = ingest(self.sources, self._options)
        for note in _notes(store):
            print(f"gipo: note: {note}", file=sys.stderr)
        return store

    def bounded_as(self, spaces: Mapping[str, Any]) -> None:
        """Take the bounds in a description of a policy's spaces, where neither sources nor options say any."""
        self._of_policy = spaces.get("action_low"), spaces.get("action_high")

    @property
    def spaces(self) -> Spaces:
        """What a policy for these logs is built for."""
        interface = self.store.facts.interface
        if self._low is None or self._high is None:
            said = interface.action_low, interface.action_high
            low, high = self._of_policy if None in said else said
        elif not len(self._low) == len(self._high) == interface.action_size:
            raise UserError(f"data.action_low and data.action_high need {interface.action_size} numbers each")
        else:
            low, high = self._low, self._high
        if low is None or high is None:
            raise UserError("the logs do not say the bounds of an action; give data.action_low and data.action_high")
        low, high = tuple(low), tuple(high)
        spaces: Any = Spaces(interface.observation_size, low, high)
        if interface.image is not None:
            chunk = self._decided_at_once(interface)
            words = interface.instruction_bytes or INSTRUCTION_BYTES
            cameras = interface.cameras or ()
            spaces = VLASpaces(interface.image, interface.observation_size, low, high, chunk, words, cameras)
        elif self._chunk is not None:
            raise UserError("data.chunk is for logs with images that a policy decides by, and these have none")
        self.refuse_unlike(spaces)
        return spaces

    def _decided_at_once(self, interface: Interface) -> int:
        """H, which the logs say, or else `data.chunk`."""
        chunk = interface.chunk or self._chunk
        if chunk is None:
            raise UserError("the logs do not say on how many actions a policy that sees is to decide; give data.chunk")
        if self._chunk not in (None, chunk):
            raise UserError(f"data.chunk is {self._chunk}, and the logs say that policies decided on {chunk} actions")
        return chunk

    @property
    def privileged_size(self) -> int:
        """G, the numbers of every step that a critic may see and a policy does not get; 0 where there are none."""
        found = self.store.frames.get("privileged", None)
        return 0 if found is None else int(found.shape[-1])

    def refuse_unlike(self, spaces: Spaces, named: Mapping[str, Any] | None = None) -> None:
        """Refuse logs of another robot than a policy is for.

        Args:
            spaces: of the policy.
            named: names, units and rate it was trained with, as a checkpoint keeps them, where they are known.

        Raises:
            UserError: naming what differs, of what both say.
        """
        known = {name: tuples(value) for name, value in (named or {}).items() if name in NAMES}
        low, high, found = spaces.action_low, spaces.action_high, self.store.facts.interface
        if isinstance(spaces, VLASpaces):
            known |= {"image": spaces.image, "chunk": spaces.chunk, "cameras": spaces.cameras or None}
        if isinstance(spaces, VLASpaces) != (found.image is not None):
            have, takes = ("images", "none") if found.image is not None else ("no images", "some")
            raise UserError(
                f"the logs hold {have} that a policy decided by, and the policy to be trained takes {takes}"
            )
        wanted = Interface(spaces.observation_size, len(low), action_low=low, action_high=high, **known)
        difference = wanted.difference(found)
        if difference:
            raise UserError(f"the logs are of another robot than the policy to be trained is for: its {difference}")

    @property
    def modelled(self) -> bool:
        """Whether a model of who acted is fitted where log-probs are read that the logs do not hold."""
        return self._behaviour is not None

    @property
    def logged(self) -> TensorDictBase:
        """Transitions as the store has them, of successes alone where no others are to be learned from."""
        return successful(self.store.frames) if self._successes_only else self.store.frames

    def frames(self, policy: Policy, needs_behaviour: bool, critic: bool = True) -> TensorDictBase:
        """All transitions [M] for `policy` to learn from, with latents, and log-probs where its objective reads them.

        Of a policy that sees they are decisions, whose observations `seen` makes what it takes. Where its `critic`
        is not asked, the logs need not hold what only that sees.

        Raises:
            UserError: when they cannot be had, or are of another robot than the policy is for.
        """
        if self._frames is None:
            self.refuse_unlike(policy.spaces)
            self.refuse_out_of_bounds(policy.spaces)
            self._refuse_hidden(policy, critic)
            store = self._decided(policy.spaces) if isinstance(policy.spaces, VLASpaces) else self.store
            completed = complete(store, policy, self._behaviour, needs_behaviour, self._seed)
            kept = worth_keeping(completed, policy)
            self._frames = successful(kept) if self._successes_only else kept
        return self._frames

    def refuse_out_of_bounds(self, spaces: Spaces) -> None:
        """Refuse actions that a policy cannot take, as of a source that says no bounds that they were held against.

        What others did is held against none where bounds are known: a person may go beyond them.
        """
        low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
        action = self.store.frames["action"]
        room = ROUNDING * (high - low)
        beyond = ((action < low - room) | (action > high + room)).any(-1)
        if self.store.facts.interface.action_low is not None:
            beyond &= self.store.frames["valid"]
        outside = int(beyond.sum())
        if outside:
            least, most = (_short(found(0).values) for found in (action.min, action.max))
            raise UserError(
                f"{outside:,} of {len(action):,} logged actions are outside of the policy's bounds, {_short(low)} to "
                f"{_short(high)}: they go from {least} to {most}. Are they in another unit? Else give bounds that hold "
                "them, data.action_low and data.action_high"
            )

    def _refuse_hidden(self, policy: Policy, critic: bool) -> None:
        """Refuse a critic, if it is asked, that is to see what the logs do not hold."""
        if critic and policy.privileged_size not in (0, self.privileged_size):
            raise UserError(
                f"the critic sees {policy.privileged_size} privileged numbers, and the logs hold "
                f"{self.privileged_size or 'none'}, as a real robot does not know them; use model.critic=observation"
            )

    def _decided(self, spaces: VLASpaces) -> Store:
        """The store with decisions in place of steps."""
        frames, left = decisions_of(self.store.frames, spaces.chunk, self.store.decided)
        if left:
            print(f"gipo: note: {left:,} steps are in no decision whose image is in the logs", file=sys.stderr)
        self.seen = Sight(self.store, spaces)
        return replace(self.store, frames=frames)

    @cached_property
    def provenance(self) -> TrainedOn:
        """The logs, and the policy that acted in most of them, for the lineage of a checkpoint."""
        facts = self.store.facts
        sizes = [source.steps for source in facts.sources]
        valid = self.store.frames["valid"]
        if self._successes_only:
            valid = valid & succeeded(self.store.frames)
        acted = torch.where(valid, self.store.frames["policy"], -1)
        logs = []
        for source, policies, used in zip(facts.sources, acted.split(sizes), valid.split(sizes), strict=True):
            names = [facts.policies[index] for index in policies.unique().tolist() if index >= 0]
            session, sessions = (source.sessions[0], []) if len(source.sessions) == 1 else (None, [*source.sessions])
            steps = int(used.sum())
            logs.append(asdict(LearnedLog(session, source.sha256, names, steps, sessions)))
        known = acted[acted >= 0]
        parent = facts.policies[int(known.bincount().argmax())] if len(known) else None
        return {"parent": parent, "logs": logs}

    def of_another(self, task: str) -> str | None:
        """What to say of logs whose policies were for another task than `task`; None where they were for that one."""
        of = sorted({source.task for source in self.store.facts.sources} - {"", task})
        return f"the logs are of {', '.join(of)}; the policy is evaluated on data.task={task}" if of else None

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate that the logs say, as a checkpoint keeps them."""
        found = asdict(self.store.facts.interface)
        return {name: found[name] for name in NAMES if found[name] is not None}


def _short(values: Tensor) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values.tolist())}]"


def succeeded(frames: TensorDictBase) -> Tensor:
    """Which of transitions [M] are of an episode that is known to have succeeded, [M] bool."""
    return frames["success"] == 1


def successful(frames: TensorDictBase) -> TensorDictBase:
    """Select of transitions [M] those whose episode succeeded.

    Raises:
        UserError: when there are none.
    """
    rows = succeeded(frames).nonzero().squeeze(-1)
    if not len(rows):
        raise UserError(
            "data.successes_only leaves nothing: no episode of the logs is known to have succeeded; `gipo-robot label` "
            "says it of a log, next.success of a LeRobot dataset, infos/success of one of Minari"
        )
    return frames[rows]


def _notes(store: Store) -> list[str]:
    """What a person should know of what was read, left out and assumed; the whole of it stands in the store."""
    facts, strange = store.facts, [f"left out: {reason}" for reason in store.left_out]
    notes = [*facts.notes, *(f"left out: {where}: {reason}" for where, reason in facts.skipped)]
    others = [f"left out: {len(strange) - NOTES:,} more of the folders; `gipo-robot verify` names every file"]
    more = [f"{len(notes) - NOTES:,} more in {store.path / FACTS}"]
    return strange[:NOTES] + others * (len(strange) > NOTES) + notes[:NOTES] + more * (len(notes) > NOTES)
