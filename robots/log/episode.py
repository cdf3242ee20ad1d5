"""One episode of a log as arrays."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gipo.common.errors import UserError
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
    """

    number: int
    columns: dict[str, np.ndarray]
    gate: dict[int, list[str]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    shadows: list[dict[str, Any]] = field(default_factory=list)
    label: Label | None = None

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
        return self.start.get("policy_id")

    @property
    def deterministic(self) -> bool:
        """Whether the policy's most likely action was taken instead of a sample."""
        return bool(self.start.get("deterministic"))

    @property
    def success(self) -> bool | None:
        """The label's word, else the outcome event's; None when nobody said."""
        if self.label is not None and self.label.success is not None:
            return self.label.success
        outcome = self.event("outcome")
        return None if outcome is None else bool(outcome["data"]["success"])

    @property
    def complete(self) -> bool:
        """Whether the log saw the episode end."""
        return self.event("episode_end") is not None

    @property
    def final_observation(self) -> np.ndarray | None:
        """[O] f32 seen after the last step; None when the log ends before, or the steps in between were dropped.

        Raises:
            UserError: when it is no such vector.
        """
        end = self.event("episode_end")
        values = None if end is None else end["data"].get("final_observation")
        if end is None or values is None or end["step"] > self["step"][-1] + 1:
            return None
        with suppress(TypeError, ValueError):
            found = np.array(values, np.float32)
            if found.shape == self["observation"].shape[1:] and np.isfinite(found).all():
                return found
        raise UserError(f"episode {self.number} ends with an observation of another form")

    @property
    def total(self) -> float:
        """Return of all logged steps, the label's reward included."""
        added = None if self.label is None else self.label.reward
        return float(self["reward"].sum(dtype=float)) + (added or 0.0)

    def transitions(self) -> dict[str, np.ndarray]:
        """The columns of every step whose next observation is known, with `next_observation`, `next_*` and `done`.

        A step before a gap, or before the end of a torn log, has none: it is left out, and the step before it is
        marked truncated, so that no return is computed across what is missing. The label's reward is on the last step
        that is kept.
        """
        length = len(self)
        last = self.final_observation
        follows = np.append(np.diff(self["step"]) == 1, last is not None)
        tail = np.zeros((1, *self["observation"].shape[1:]), np.float32) if last is None else last[None]
        rows = {**self.columns, "next_observation": np.concatenate([self["observation"][1:], tail])[:length]}
        reward = self["reward"].copy()
        if follows.any() and self.label is not None and self.label.reward is not None:
            reward[np.flatnonzero(follows)[-1]] += self.label.reward
        last_known = np.append(~follows[1:], True)[:length]
        rows["next_reward"], rows["next_terminated"] = reward, self["terminated"]
        rows["next_truncated"] = (self["truncated"] | last_known) & ~self["terminated"]
        rows["done"] = rows["next_truncated"] | rows["next_terminated"]
        rows["episode"] = np.full(length, self.number)
        return {name: values[follows] for name, values in rows.items()}
