"""Two comparisons of a task in both simulators: step by step from equal starts and actions, and episode by episode."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any

import mujoco
import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from benchmarks.simulators.twins import Twins
from gipo.common.simulators.equality import OWN_MUJOCO
from gipo.common.simulators.native import Answer, Pool, metaworld_id

SEEDS = range(3)  # of simulators that step together
EPISODES = 2  # one after another: the second begins from where the first has left the model
STEPS = 200  # of an episode that is compared step by step
POLICY_EPISODES, POLICY_STEPS = 4, 300  # in every simulator; MetaWorld's policies succeed within that, if they do


@dataclass(frozen=True)
class Apart:
    """How far two simulators are apart over some episodes, at most.

    Args:
        start: of first observations.
        observation: of those that follow, metres and components of quaternions.
        reward: of rewards, which are between 0 and 10.
        success: share of steps at which one has succeeded and the other has not.
    """

    start: float
    observation: float
    reward: float
    success: float


@dataclass(frozen=True)
class Episodes:
    """What MetaWorld's own policy for a task reaches in episodes that begin alike in both simulators.

    Args:
        success: share of episodes that succeed at any step, in MetaWorld and in EnvPool.
        reward: mean of a step.
    """

    success: tuple[float, float]
    reward: tuple[float, float]


# With the MuJoCo that EnvPool is built with. Where contacts let a difference of rounding grow, as much is allowed as
# MetaWorld is apart from itself after a nudge of its start that is as small, times three.
TOLERANCE = Apart(start=1e-9, observation=1e-5, reward=1e-3, success=0.0)
NUDGE, TIMES = 1e-8, 3
# With the MuJoCo that MetaWorld pins, whose contacts are a little different: what a policy reaches.
SUCCESS, REWARD = 0.1, 0.1  # largest differences: of shares, and of mean rewards relative to MetaWorld's


def stepwise(task: str, scripted: bool, nudge: float | None = None) -> tuple[Apart, Apart | None]:
    """How far EnvPool is apart from MetaWorld, whose observations are acted on; and MetaWorld from itself if nudged.

    Args:
        task: one of the fifty.
        scripted: whether MetaWorld's own policy for the task acts, which touches things and succeeds; else at random.
        nudge: metres and radians by which a third simulator begins beside; none for no such.
    """
    with ExitStack() as stack:
        truth = stack.enter_context(closing(Twins(task, SEEDS)))
        others: list[Any] = [stack.enter_context(closing(Pool(metaworld_id(task), SEEDS)))]
        if nudge is not None:
            others.append(stack.enter_context(closing(Twins(task, SEEDS, nudge))))
        act = _actor(task, scripted)
        found: list[list[Any]] = [[] for _ in others]
        for _ in range(EPISODES):
            seen = truth.reset()
            starts = [np.abs(other.reset() - seen).max() for other in others]
            for _ in range(STEPS):
                actions = act(seen)
                expected, answers = truth.step(actions), [other.step(actions) for other in others]
                for rows, start, answer in zip(found, starts, answers, strict=True):
                    rows.append((start, *_differences(expected, answer)))
                seen = expected.observation
    native, *own = (_summary(np.array(rows)) for rows in found)
    return native, own[0] if own else None


def episodes(task: str) -> Episodes:
    """What MetaWorld's policy for a task reaches, in either simulator by what it sees there."""
    with closing(Twins(task, SEEDS)) as truth, closing(Pool(metaworld_id(task), SEEDS)) as pool:
        success, reward = zip(
            *(_reached(simulators, _actor(task, scripted=True)) for simulators in (truth, pool)), strict=True
        )
    return Episodes(success, reward)


def _reached(simulators: Any, act: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Share of episodes that succeed, and mean reward."""
    succeeded, rewards = [], []
    for _ in range(POLICY_EPISODES):
        seen, success = simulators.reset(), np.zeros(len(SEEDS), bool)
        for _ in range(POLICY_STEPS):
            answer = simulators.step(act(seen))
            seen, success = answer.observation, success | answer.success
            rewards.append(answer.reward.mean())
        succeeded.append(success.mean())
    return float(f"{np.mean(succeeded):.3g}"), float(f"{np.mean(rewards):.3g}")


def measure(task: str) -> dict[str, Any]:
    """What can be measured of a task with the MuJoCo that is installed.

    With EnvPool's own, `code`: step by step, with random actions and with MetaWorld's policy for the task, and how far
    MetaWorld is apart from itself once nudged. With MetaWorld's, `pinned`: step by step again, and `episodes`.
    """
    same = mujoco.__version__ == OWN_MUJOCO
    found: dict[str, Any] = {}
    for name, scripted in (("random", False), ("scripted", True)):
        native, own = stepwise(task, scripted, NUDGE if same else None)
        found[name] = asdict(native)
        if own is not None:
            found[f"{name}_nudged"] = asdict(own)
    gc.collect()  # MuJoCo's models are in circles of references
    return {"code": found} if same else {"pinned": found, "episodes": asdict(episodes(task))}


def differs(found: dict[str, Any]) -> str | None:
    """What `measure` found that is beyond the tolerances, in words; None where all is within."""
    unknown = "it has not been compared"
    if "code" not in found:
        return unknown
    beyond = [
        f"{what} by {value:g} with {name} actions"
        for name in ("random", "scripted")
        for what, value in _beyond(found["code"][name], found["code"][f"{name}_nudged"])
    ]
    if beyond:
        return "; ".join(beyond)
    if "episodes" not in found:
        return unknown
    (ours, native), (reward, native_reward) = found["episodes"]["success"], found["episodes"]["reward"]
    if abs(ours - native) > SUCCESS:
        return f"MetaWorld's policy succeeds in {native:.0%} of episodes in EnvPool, and {ours:.0%} in MetaWorld"
    if abs(native_reward / reward - 1) > REWARD:
        return f"MetaWorld's policy has a mean reward of {native_reward:g} in EnvPool, and {reward:g} in MetaWorld"
    return None


def _differences(expected: Answer, answer: Answer) -> tuple[float, float, float]:
    observation, reward = (np.abs(a - b).max() for a, b in zip(expected[:2], answer[:2], strict=True))
    return observation, reward, float(np.mean(expected.success != answer.success))


def _summary(rows: np.ndarray) -> Apart:
    """Of rows [steps, 4]: the largest of each column, of the last the mean; to two digits."""
    return Apart(*(float(f"{value:.2g}") for value in (*rows[:, :3].max(0), rows[:, 3].mean())))


def _beyond(native: dict[str, float], own: dict[str, float]) -> Iterator[tuple[str, float]]:
    for what, value in native.items():
        if value > max(getattr(TOLERANCE, what), TIMES * own[what]):
            yield what, value


def _actor(task: str, scripted: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Actions [N, 4] f32 for observations [N, 39]."""
    if scripted:
        policy = ENV_POLICY_MAP[task]()
        return lambda seen: np.clip([policy.get_action(each) for each in seen], -1, 1).astype(np.float32)
    rng = np.random.default_rng(0)
    return lambda seen: rng.uniform(-1, 1, (len(seen), 4)).astype(np.float32)
