"""The data contract: what a transition is, said once, for robots, datasets, stores, replays and learners.

The log's schema and columns (`robots.log`), the exports (`robots.review`), the checks, blocks and store of the ingest
(`datamodules.ingest`) and the keys of the replays (`datamodules.replay`) are derived from FIELDS. A new field is an
entry here and the code that fills it; `docs/data-contract.md` says how.

A shape is that of one step: O numbers are observed, C cameras see, G numbers are privileged, D are commanded, P
describe the distribution of one of them, and a policy over action chunks decides on H steps at once. Then whatever is
of one step is [H] or [H, D] in the replay.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from gipo.common.tables import markdown

Columns = Mapping[str, np.ndarray]


class Place(Flag):
    """Where a field of a transition is kept."""

    LOG = auto()  # a row of a robot's log
    STORE = auto()  # a frame of the memory-mapped store that an ingest makes
    REPLAY = auto()  # a frame that an online run collects
    BATCH = auto()  # what the learner is given


LOG, STORE, REPLAY, BATCH = Place
EVERYWHERE = LOG | STORE | REPLAY | BATCH
DERIVED = "derived"
SOURCES = ("policy", "person", "hold")  # who may have chosen an action; their places are the numbers in columns
POLICY, PERSON, HOLD = map(SOURCES.index, SOURCES)
MAX_CONTROL_RATE = 100_000  # Hz, of a policy
NOBODY_SAID = -1


@dataclass(frozen=True)
class Field:
    """One entry of a transition.

    Args:
        name: of its column in logs and in the ingest.
        shape: of one step, in symbols separated by blanks; empty for one value.
        dtype: numpy's name of its type; of `integer|float`, the first where whole numbers are given.
        meaning: in words.
        writer: who says it.
        places: where it is kept.
        unit: of its numbers.
        default: a value, or a function of the columns [T, …] that are there, for those that say nothing; None where
            something has to be said.
        optional: may be missing altogether.
        later: logs and exports of ours that are older than the field lack it, and are read with its default.
        foreign: taken from other writers' datasets, too, where they have a column of its name.
        finite: is a number at every step, whoever chose the action.
        whole_episode: the same at all steps of an episode.
        log_dtype: in the log, where that is another.
        key: in a TensorDict, levels separated by `/`; its name unless given.
        row: in `robots.log.Episode.transitions`; its name unless given.
        lerobot: its column in a LeRobot dataset of ours.
        minari: its place in an episode of a Minari dataset of ours.
        choices: the texts that it is one of in the log; a column holds their numbers.
        absent_as: another field, whose value it has where a row of a log says null.
    """

    name: str
    shape: str
    dtype: str
    meaning: str
    writer: str
    places: Place
    unit: str = ""
    default: Any = None
    optional: bool = False
    later: bool = False
    foreign: bool = False
    finite: bool = False
    whole_episode: bool = False
    log_dtype: str = ""
    key: str = ""
    row: str = ""
    lerobot: str = ""
    minari: str = ""
    choices: tuple[str, ...] = ()
    absent_as: str = ""

    def __post_init__(self) -> None:
        for name, usual in (("key", self.name), ("row", self.name), ("log_dtype", self.dtype)):
            object.__setattr__(self, name, getattr(self, name) or usual)

    @property
    def derived(self) -> bool:
        """Whether the field follows from others, and is never read."""
        return self.writer == DERIVED

    @property
    def silent(self) -> bool:
        """Whether the log of a robot that cannot know it says nothing of it, in every row."""
        return self.optional and self.later

    @property
    def path(self) -> tuple[str, ...]:
        """The levels of `key`."""
        return tuple(self.key.split("/"))

    def type_for(self, whole: bool, logged: bool = False) -> np.dtype[Any]:
        """The type of its column [T, …], where `whole` numbers are given or not; `logged` in a log."""
        return _types(self.log_dtype if logged else self.dtype)[0 if whole else -1]

    def parsed(self, values: list[Any]) -> np.ndarray:
        """Column [T] or [T, n] of what T rows of a log say.

        Raises:
            ValueError, TypeError, IndexError, OverflowError: when they are ragged, or are no such values.
        """
        if self.choices:
            if unknown := set(values) - set(self.choices):
                raise ValueError(f"{self.name} {unknown.pop()!r:.40} is none of {', '.join(self.choices)}")
            values = list(map(self.choices.index, values))
        if not self.shape:
            with np.errstate(over="ignore"):
                return np.array(values, self.type_for(whole=True, logged=True))
        width = len(values[0])
        if set(map(len, values)) != {width}:
            raise ValueError("rows of unequal length")
        kind = self.type_for(whole=type(values[0][0]) is int, logged=True)
        with np.errstate(over="ignore"):  # what becomes infinite is refused by who checks it
            return np.fromiter(chain.from_iterable(values), kind, width * len(values)).reshape(len(values), width)

    def typed(self, values: np.ndarray) -> np.ndarray:
        """Values [T, …] in the type of the field; what does not fit into a float becomes infinite."""
        with np.errstate(over="ignore"):
            return values.astype(self.type_for(values.dtype.kind in "iu"), copy=False)

    def default_of(self, columns: Columns) -> np.ndarray:
        """Column [T] where nobody says anything, by the other columns of the same steps."""
        kind = self.type_for(whole=True)
        if callable(self.default):
            return np.asarray(self.default(columns), kind)
        return np.full(len(next(iter(columns.values()))), self.default, kind)


@cache
def _types(names: str) -> tuple[np.dtype[Any], ...]:
    return tuple(map(np.dtype, names.split("|")))


def complete(columns: MutableMapping[str, np.ndarray], fields: Iterable[Field]) -> None:
    """Add those of the fields that are not there and have a default."""
    for field in fields:
        if field.name not in columns and field.default is not None:
            columns[field.name] = field.default_of(columns)


def _done(columns: Columns) -> np.ndarray:
    return columns["terminated"] | columns["truncated"]


def _source(columns: Columns) -> np.ndarray:
    """The policy, where it is said to have sampled and which version it was; nobody knows of the other steps.

    A foreign dataset calls its steps valid and names no version: a person may have shown them.
    """
    # With action chunks `valid` is [T, H] and the version [T].
    known = columns["valid"].T & (columns["policy_version"] >= 0)
    return np.where(known, SOURCES.index("policy"), NOBODY_SAID).T


FIELDS = (
    Field("episode", "", "int64", "number of the episode: in the session, the store or the run", "recorder, ingest, "
          "collector", LOG | STORE | REPLAY, whole_episode=True),
    Field("step", "", "int64", "tick or decision within the episode, from 0; where it jumps, steps were dropped",
          "recorder, collector", LOG | STORE | REPLAY, lerobot="policy.step", minari="infos/step"),
    Field("wall_ns", "", "int64", "wall clock when the tick began", "recorder", LOG, "ns since 1970"),
    Field("monotonic_ns", "", "int64", "clock that paces the loop, when the tick began", "recorder", LOG, "ns"),
    Field("observation", "O", "float32", "what the policy saw, raw: before its normaliser", "robot, simulator",
          EVERYWHERE, "robot's", finite=True, lerobot="observation.state", minari="observations"),
    Field("latent", "D", "int64|float32", "what `log_prob` is of: tokens, or the value before squashing", "policy",
          EVERYWHERE, optional=True, foreign=True, lerobot="policy.latent", minari="infos/latent"),
    Field("action", "D", "float32", "what whoever acted asked for", "policy, person", LOG | STORE | REPLAY, "robot's",
          finite=True, lerobot="policy.action", minari="infos/policy_action"),
    Field("sent_action", "D", "float32", "what the driver says it sent, after the gate", "robot", LOG | STORE,
          "robot's", finite=True, log_dtype="float64", lerobot="action", minari="actions"),
    Field("log_prob", "D", "float32", "log-probability of `latent` under the policy that acted or, where a person did, "
          "looked on, of each dimension; never recomputed with another policy; 0 in a store where `valid` is not",
          "policy", EVERYWHERE, "nats", optional=True, foreign=True, lerobot="policy.log_prob",
          minari="infos/log_prob"),
    Field("behaviour_params", "D P", "float16", "the distribution that was sampled from, with `data.store_params`",
          "policy", REPLAY | BATCH, optional=True),
    Field("policy_version", "", "int64", "learner version that acted", "recorder, collector", EVERYWHERE, default=-1,
          foreign=True, lerobot="policy.version", minari="infos/policy_version"),
    Field("policy", "", "int64", "which policy acted: index into the store's policy ids, −1 where nobody says",
          "ingest", STORE, whole_episode=True),
    Field("valid", "", "bool", "the policy chose the action by sampling: not while engaging, not deterministically, "
          "not a step of a chunk that was not executed. False stays out of ratios", "recorder, collector", EVERYWHERE,
          default=True, foreign=True, lerobot="policy.valid", minari="infos/valid"),
    Field("executed", "H", "bool", "which steps of a chunk were executed", "simulator", REPLAY | BATCH, optional=True),
    Field("reward", "", "float32", "from this observation to the next one; what persons give is added in `transitions`",
          "robot, simulator, person", LOG | STORE | REPLAY, default=0.0, finite=True, key="next/reward",
          row="next_reward", lerobot="next.reward", minari="rewards"),
    Field("terminated", "", "bool", "the task ended at the next observation, whose value is 0", "robot, simulator",
          LOG | STORE | REPLAY, key="next/terminated", row="next_terminated", lerobot="next.terminated",
          minari="terminations"),
    Field("truncated", "", "bool", "the episode was cut at the next observation, whose value is bootstrapped",
          "recorder, simulator", LOG | STORE | REPLAY, key="next/truncated", row="next_truncated",
          lerobot="next.truncated", minari="truncations"),
    Field("gate", "any", "str", "what the gate changed: `bounds`, `rate`, `acceleration`, `engage`", "gate", LOG),
    Field("timing_us", "7", "int64", "how late the tick began, all its work, and each section; `log` is the previous "
          "tick's", "recorder", LOG, "µs"),
    Field("chunk_step", "", "int64", "which action of its decision's chunk it is; 0 where every step is decided alone",
          "recorder", LOG | STORE, default=0, later=True, lerobot="policy.chunk_step", minari="infos/chunk_step"),
    Field("source", "", "int8", "who chose the action: 0 `policy`, also deterministically; 1 `person`; 2 `hold`, while "
          "control is handed over from where the robot is held, or nobody commands; −1 where nobody says. Only the "
          "policy's are `valid`", "recorder", EVERYWHERE, default=_source, later=True, lerobot="policy.source",
          minari="infos/source", choices=SOURCES),
    Field("proposed_action", "D", "float32", "what the policy would have done; its `action` where it acted", "policy",
          LOG, "robot's", default=lambda columns: columns["action"], later=True, absent_as="action",
          lerobot="policy.proposed_action", minari="infos/proposed_action"),
    Field("privileged", "G", "float32", "what a simulator knows and its policy does not get, such as where things "
          "are: for a critic alone", "simulator, simulated robot", EVERYWHERE, "task's", optional=True, later=True,
          finite=True),
    Field("picture", "C", "int64", "which of the store's images the policy saw; −1 where there is none", "ingest",
          STORE, optional=True),
    Field("next_picture", "C", "int64", "which it saw after the action", "ingest", STORE, optional=True,
          key="next/picture"),
    Field("instruction", "", "int64", "what the policy was told: index into the store's instructions, −1 for nothing",
          "ingest", STORE, whole_episode=True),
    Field("next_observation", "O", "float32", "what was seen after the action", "robot, simulator", STORE | REPLAY,
          "robot's", finite=True, key="next/observation"),
    Field("next_privileged", "G", "float32", "the same after the action", "simulator, simulated robot", STORE | REPLAY,
          "task's", optional=True, finite=True, key="next/privileged"),
    Field("done", "", "bool", "terminated or truncated", DERIVED, STORE | REPLAY, default=_done, key="next/done",
          lerobot="next.done"),
    Field("success", "", "int8", "of the whole episode: 1, 0, or −1 where nobody says", "robot, label", STORE,
          whole_episode=True),
    Field("next_success", "", "bool", "the task is done at the next observation", "simulator", REPLAY, optional=True,
          key="next/success"),
    Field("staggered", "", "bool", "a first episode that was cut to begin out of phase", "collector", REPLAY,
          optional=True, key="next/staggered"),
    Field("advantage", "", "float32", "how much better than expected, by the current critic", "replay", REPLAY | BATCH),
    Field("value_target", "", "float32", "what the critic is to say of the observation", "replay", REPLAY | BATCH),
)  # fmt: skip


def kept_in(place: Place) -> tuple[Field, ...]:
    """The fields of a place, in the order of FIELDS."""
    return tuple(field for field in FIELDS if place in field.places)


LOGGED, STORED, LEARNED = kept_in(LOG), kept_in(STORE), kept_in(BATCH)
EXPORTED = tuple(field for field in FIELDS if field.lerobot or field.minari)
# What an ingest takes from a source; what follows from it, and what is the same for an episode, it adds itself.
COLUMNS = tuple(field for field in STORED if not field.derived and not field.whole_episode)


def tables() -> str:
    """FIELDS as two tables in Markdown: what each is, and by what name it is kept where."""
    what: list[tuple[str, ...]] = [("field", "shape", "type", "unit", "meaning", "says it", "where nobody does")]
    where: list[tuple[str, ...]] = [("field", "log", "LeRobot export", "Minari export", "store", "replay", "batch")]
    for field in FIELDS:
        shape = f"[{', '.join(field.shape.split())}]" if field.shape else "one"
        types = " or ".join(field.dtype.split("|"))
        types += f" ({field.log_dtype} in the log)" if field.log_dtype != field.dtype else ""
        what.append((f"`{field.name}`", shape, types, field.unit, field.meaning, field.writer, _missing(field)))
        columns = [field.name if LOG in field.places else "", field.lerobot, field.minari]
        columns += [field.key if place in field.places else "" for place in (STORE, REPLAY, BATCH)]
        where.append((f"`{field.name}`", *(f"`{name}`" if name else "" for name in columns)))
    return "\n\n".join(markdown(head, rows) for head, *rows in (what, where))


def _missing(field: Field) -> str:
    if callable(field.default):
        return DERIVED
    return "may be missing" if field.optional else "" if field.default is None else f"{field.default}"
