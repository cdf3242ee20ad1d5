"""Who has the robot at a tick, the policy or a person, and since when: taking over, handing back, and gone people."""

from dataclasses import dataclass

import numpy as np

from gipo.common.errors import UserError
from robots import safety
from robots.base import Observation
from robots.people.operator import Said
from robots.people.watch import Watched
from robots.spec import RobotSpec


@dataclass(frozen=True)
class Turn:
    """Who has the robot at a tick.

    Args:
        who: `policy`, `person`, or `hold` where a person has it and commands nothing.
        since: the step from which control is being handed over to them.
        action: [D] what is commanded in the policy's place; None where it is the policy's turn.
        event: `takeover`, `handback` or `operator` (it is gone), where that happens at this tick; else empty.
        reason: of the event.
    """

    who: str
    since: int = 0
    action: np.ndarray | None = None
    event: str = ""
    reason: str = ""


class Takeover:
    """Passes the robot between a policy and a person.

    An operator that is gone (it raised) is a hold for one tick, and a stop at the next. One that is late (it has the
    robot, and has not answered for half its patience) is a hold until it answers, or its whole patience has passed,
    which is a stop: whoever relied on being able to take over cannot any more, whether they had the robot or not.

    Args:
        spec: of the robot, for what holds it.
        watched: the operator; None for none, and then it is always the policy's turn.
    """

    def __init__(self, spec: RobotSpec, watched: Watched | None):
        self._spec, self._watched = spec, watched
        self._turn, self._engaged, self._gone, self._is_late = Turn("policy"), False, "", False

    def begin(self) -> None:
        """Begin an episode, in which the policy has the robot until a person takes it."""
        self._turn, self._engaged, self._gone, self._is_late = Turn("policy"), False, "", False
        if self._watched is not None:
            self._watched.begin()

    def rest(self) -> None:
        """End the episode: nobody is asked any more."""
        if self._watched is not None:
            self._watched.rest()

    def words(self) -> list[Said]:
        """What the person has said since the last call, in order."""
        return [] if self._watched is None else self._watched.words()

    def next(self, observation: Observation, step: int) -> Turn:
        """Whose turn it is at a step, by its observation, which the operator is shown.

        Raises:
            UserError: when the operator is gone, and the robot must stop.
        """
        if self._watched is None:
            return self._turn
        answer = self._watched.ask(observation)
        if fault := answer.fault or self._silent(answer.to is observation):
            if self._gone:
                raise UserError(f"the operator is gone: {self._gone}")
            self._gone = fault
            return self._pass("hold", step, self._hold(observation), "operator", f"the operator is gone: {fault}")
        before, self._is_late = self._is_late, self._engaged and self._watched.silence() > self._watched.patience / 2
        if self._is_late:
            event = "" if before else "operator"
            reason = f"the operator is late: it has not answered for {1000 * self._watched.silence():.0f} ms"
            return self._pass("hold", step, self._hold(observation), event, reason)
        event, reason = "", ""
        if answer.engaged != self._engaged:
            event = "takeover" if answer.engaged else "handback"
            reason = "a person took over" if answer.engaged else "a person handed back"
        self._engaged, self._gone = answer.engaged, ""
        if not answer.engaged:
            return self._pass("policy", step, None, event, reason)
        if answer.action is None:
            return self._pass("hold", step, self._hold(observation), event, reason)
        return self._pass("person", step, answer.action, event, reason)

    def unsafe(self) -> str:
        """Why the robot may not go on, asked by the watchdog; empty when it may."""
        if self._watched is None or self._watched.silence() <= self._watched.patience:
            return ""
        return f"the operator has not answered for {1000 * self._watched.silence():.0f} ms"

    def _silent(self, answered: bool) -> str:
        """Why an operator that is waited for is gone; one that nobody waits for is judged by its silence."""
        assert self._watched is not None
        waited = self._watched.waits and not answered
        return f"it has not answered for {1000 * self._watched.patience / 2:.0f} ms" if waited else ""

    def _hold(self, observation: Observation) -> np.ndarray:
        now = safety.held_by(self._spec, observation.hold)
        if self._turn.who != "hold" or self._turn.action is None:
            return now
        return safety.kept_by(self._spec, self._turn.action, now)

    def _pass(self, who: str, step: int, action: np.ndarray | None, event: str, reason: str) -> Turn:
        since = self._turn.since if who == self._turn.who else step
        self._turn = Turn(who, since, action, event, reason)
        return self._turn
