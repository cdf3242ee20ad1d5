"""MetaWorld's scripted policies in a person's place, for tests and studies: they take over where progress stalls."""

import warnings
from collections import deque
from typing import Any

import numpy as np

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.common.extras import install
from gipo.common.simulators.metaworld import ACTIONS, OBSERVATIONS
from robots.base import Observation
from robots.people.operator import Operator, Said
from robots.spec import RobotSpec


class ScriptedOperator(Operator):
    """Looks on while the reward rises; where it does not, helps until the task is done, or for a while.

    Whoever has seen the task done once helps no more in that episode.

    Args:
        spec: of the robot.
        manifest: of the policy that is helped.
        task: a MetaWorld task; the manifest's unless given.
        patience: steps over which the mean reward must rise by `least`, or the person takes over; as many pass after a
            hand-back before they do again.
        least: that rise.
        help: steps after which they hand back, whatever came of it.
        linger: steps for which the task is done before they hand back.
        strength: of their moves. A person who sees that an arm does not arrive pushes harder than the script, which was
            written for an arm without a gap.
        verdict: they say success when the robot reports it for the first time, and failure never.

    Raises:
        UserError: when MetaWorld is not installed or has no such task, or the robot does not say what scripts go by.
    """

    def __init__(
        self,
        spec: RobotSpec,
        manifest: Manifest,
        task: str | None = None,
        patience: int = 50,
        least: float = 0.1,
        help: int = 150,
        linger: int = 10,
        strength: float = 3.0,
        verdict: bool = False,
    ):
        if min(patience, help, linger) < 1 or strength <= 0:
            raise UserError("patience, help and linger must be at least 1, and strength above 0")
        said, wanted = (spec.observation_size, spec.action_size), (len(OBSERVATIONS), len(ACTIONS))
        if said != wanted:
            raise UserError(
                f"a scripted operator goes by MetaWorld's {wanted[0]} observations and commands {wanted[1]} actions, "
                f"{spec.name!r} has {said[0]} and {said[1]}; name keyboard, gamepad, or an operator of yours"
            )
        self._script = _script(manifest.task if task is None else task)
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        self._patience, self._least, self._help, self._linger = patience, least, help, linger
        self._strength, self._verdict = strength, verdict
        self.begin()

    def begin(self) -> None:
        """An episode begins: nothing is seen yet."""
        self._rewards: deque[float] = deque(maxlen=2 * self._patience)
        self._seen: Observation | None = None
        self._engaged = self._told = False
        self._helped = self._done = 0
        self._succeeded = False

    def action(self, observation: Observation) -> np.ndarray:
        """[D] what the script does here; how the robot gets on is seen on the way."""
        if observation is not self._seen:  # the same one is shown until there is another
            self._seen = observation
            self._watch(float(observation.reward), bool(observation.success))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of commands that are cut, as here
            wanted = np.asarray(self._script.get_action(np.asarray(observation.values, float)), float)
        return np.clip(wanted * self._strength, self._low, self._high)

    def engaged(self) -> bool:
        """Whether the person helps now."""
        return self._engaged

    def said(self) -> Said | None:
        """That the task is done, once, where they are to judge."""
        if self._verdict and self._succeeded and not self._told:
            self._told = True
            return Said(success=True)
        return None

    def _watch(self, reward: float, success: bool) -> None:
        self._done = self._done + 1 if success else 0
        self._succeeded |= success
        if self._engaged:
            self._helped += 1
            if self._helped >= self._help or self._done >= self._linger:
                self._engaged = False
                self._rewards.clear()
            return
        self._rewards.append(reward)
        if not self._succeeded and self._stalls():
            self._engaged, self._helped = True, 0

    def _stalls(self) -> bool:
        if len(self._rewards) < 2 * self._patience:
            return False
        earlier, later = np.split(np.array(self._rewards), 2)
        return bool(later.mean() < earlier.mean() + self._least)


def _script(task: str) -> Any:
    try:
        from metaworld.policies import ENV_POLICY_MAP
    except ModuleNotFoundError as error:
        raise UserError(f"scripted operators are MetaWorld's ({error.name} is missing): {install('sim')}") from error
    if task not in ENV_POLICY_MAP:
        raise UserError(f"there is no scripted operator for {task!r}; name a task: --operator-set task=reach-v3")
    return ENV_POLICY_MAP[task]()
