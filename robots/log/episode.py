"""One episode of a log as arrays."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gipo.common.errors import UserError
from gipo.common.transition import PERSON
from robots.log.labels import Label


@dataclass
class Episode:
    """One episode of T logged steps, in the order of `step`; gaps in `step` are rows that were dropped.

    Args:
        number: of the episode within its session.
        columns: [T, …], of the fields of `gipo.common.transition.LOGGED` but `episode` and `gate`.
        gate: index of a row → what the gate changed there.
        events: in order, plain data.
        shadows: rows of shadow policies, plain data.
        label: what a person said of it later, all their labels together.
        pictures: step → numbers of the images that its policy saw then, one of each camera, where they were kept; −1
            for one that is not there.
    """

    number: int
    columns: dict[str, np.ndarray]
    gate: dict[int, list[str]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    shadows: list[dict[str, Any]] = field(default_factory=list)
    label: Label | None = None
    pictures: dict[int, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def event(self, kind: str) -> dict[str, Any] | None:
        """The data and fields of the last event of this kind, if there was one."""
        return next((event for event in reversed(self.events) if event["kind"] == kind), None)

    @property
    def start(self) -> dict[str, Any]:
        """How the episode was begun: who acts on what, and where its noise comes from; empty where nobody said."""
        event = self.event("episode_start")
        return {} if event is None else event["data"]

    @property
    def policy_id(self) -> str | None:
        """Identity of the policy that acted; None where the log does not say."""
        found = self.start.get("policy_id")
        return found if isinstance(found, str) else None

    @property
    def instruction(self) -> str:
        """The words that its policy was given; empty for policies that take none."""
        return str(self.start.get("instruction") or "")

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that its policy saw, in its order; empty where nobody said."""
        return cameras_of(self.start)

    @property
    def deterministic(self) -> bool:
        """Whether the policy's most likely action was taken instead of a sample."""
        return bool(self.start.get("deterministic"))

    @property
    def overruled(self) -> np.ndarray:
        """[T] bool: the action is not the policy's own. While control passes to it, the robot follows it in part."""
        if not len(self):
            return np.zeros(0, bool)
        return (self["source"] == PERSON) | (self["proposed_action"] != self["action"]).any(-1)

    @property
    def success(self) -> bool | None:
        """The label's word, else a person's while it ran, else the robot's; None when nobody said."""
        if (judged := self._judged("success")) is not None:
            return judged
        outcome = self.event("outcome")
        return None if outcome is None else bool(outcome["data"]["success"])

    @property
    def discarded(self) -> bool:
        """Whether a person says that nothing is to be learned from it."""
        return bool(self._judged("discard"))

    @property
    def rewards_given(self) -> list[tuple[int, float]]:
        """Step and reward of what persons gave: a label's alone where there is one, for the last step that is kept."""
        if self.label is not None and self.label.reward is not None and len(self):
            return [(int(self["step"][-1]), self.label.reward)]
        # Said at a tick, it is for what the step before that tick did.
        return [(event["step"] - 1, event["data"]["reward"]) for event in self._said("reward")]

    def _judged(self, field: str) -> bool | None:
        """A field of the label, else what a person said last of it while the episode ran."""
        said = [event["data"][field] for event in self._said(field)]
        given = None if self.label is None else getattr(self.label, field)
        return given if given is not None or not said else said[-1]

    def _said(self, field: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == "said" and field in event["data"]]

    @property
    def complete(self) -> bool:
        """Whether the log saw the episode end."""
        return self.event("episode_end") is not None

    @property
    def whole(self) -> bool:
        """Whether every step is logged, from the first to the last before the end that the log saw."""
        end, steps = self.event("episode_end"), self["step"]
        counted = bool(len(steps)) and bool((steps == np.arange(len(steps))).all())
        return counted and end is not None and bool(end["step"] <= len(steps))

    @property
    def final_observation(self) -> np.ndarray | None:
        """[O] f32 seen after the last step; None when the log ends before, or the steps in between were dropped.

        Raises:
            UserError: when it is no such vector.
        """
        return self._final("observation")

    def _final(self, name: str) -> np.ndarray | None:
        """[n] f32, what a column would say after the last step."""
        end = self.event("episode_end")
        values = None if end is None else end["data"].get(f"final_{name}")
        if end is None or values is None or end["step"] > self["step"][-1] + 1:
            return None
        with suppress(TypeError, ValueError):
            found = np.array(values, np.float32)
            if found.shape == self[name].shape[1:] and np.isfinite(found).all():
                return found
        raise UserError(f"episode {self.number} ends with an {name} of another form")

    def _after(self, name: str, last: np.ndarray | None) -> np.ndarray:
        """[T, n] a column as it is after each step; zeros where nobody says."""
        tail = np.zeros((1, *self[name].shape[1:]), np.float32) if last is None else last[None]
        return np.concatenate([self[name][1:], tail])

    @property
    def total(self) -> float:
        """Return of all logged steps, what persons gave included."""
        return float(self["reward"].sum(dtype=float)) + sum(reward for _, reward in self.rewards_given)

    def transitions(self) -> dict[str, np.ndarray]:
        """The columns of every step whose next observation is known, with `next_observation`, `next_*` and `done`.

        Of a policy that sees, `picture` and `next_picture` [T, C] are the images before and after the step that were
        kept; −1 for those that were not.

        A step before a gap, or before the end of a torn log, has none: it is left out, and the step before it is
        marked truncated, so that no return is computed across what is missing. The label's reward is on the last step
        that is kept, those given while it ran are on the step before their tick, or the last one before that is kept.
        """
        length = len(self)
        last = self.final_observation
        follows = np.append(np.diff(self["step"]) == 1, last is not None)
        rows = {**self.columns, "next_observation": self._after("observation", last)}
        if "privileged" in rows:
            rows["next_privileged"] = self._after("privileged", self._final("privileged"))
        reward = self["reward"].copy()
        kept = np.flatnonzero(follows)
        for step, given in self.rewards_given if len(kept) else ():
            before = int(np.searchsorted(self["step"][kept], step, side="right"))
            reward[kept[max(0, before - 1)]] += given
        last_known = np.append(~follows[1:], True)[:length]
        rows["next_reward"], rows["next_terminated"] = reward, self["terminated"]
        rows["next_truncated"] = (self["truncated"] | last_known) & ~self["terminated"]
        rows["done"] = rows["next_truncated"] | rows["next_terminated"]
        rows["episode"] = np.full(length, self.number)
        if self.instruction:
            for name, after in (("picture", 0), ("next_picture", 1)):
                none = [-1] * max(1, len(self.cameras))
                numbers = [self.pictures.get(step + after, none) for step in self["step"].tolist()]
                rows[name] = np.array(numbers, np.int64)
        return {name: values[follows] for name, values in rows.items()}


def name_or_names(cameras: tuple[str, ...]) -> str | tuple[str, ...]:
    """What the start of an episode says of the cameras that its policy sees: the name of one, or those of several."""
    return cameras[0] if len(cameras) == 1 else cameras


def cameras_of(start: Mapping[str, Any]) -> tuple[str, ...]:
    """The cameras that a policy saw, by what the log says of how its episode was begun; empty where it does not say.

    Raises:
        UserError: when it says what are no names.
    """
    said = start.get("camera") or ()
    cameras = [said] if isinstance(said, str) else list(said) if isinstance(said, list | tuple) else [None]
    if not all(isinstance(camera, str) for camera in cameras) or len(set(cameras)) < len(cameras):
        raise UserError(f"an episode begins with cameras {said!r:.80}, which are no names")
    return tuple(map(str, cameras))
