"""EnvPool's MetaWorld against MetaWorld's own: equal starts and actions, and how far they come apart.

`python -m benchmarks.simulators [TASK ...]` prints one JSON line a task; `--write` keeps what it found where
`data.simulator=auto` reads it. Where they come apart further than the tolerances, MetaWorld's Python is the truth.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from datamodules.envs.metaworld import MetaWorldEnv
from gipo.common.simulators import equality
from gipo.common.simulators.native import Answer, Pool, metaworld_id

STEPS = 200
SIMULATORS = 4
EPISODES = 2  # one after another: the second begins from where the first has left the model
NUDGE = 1e-4  # metres and radians: by how much a start is moved to see how far MetaWorld comes apart from itself


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


# What is allowed anyhow; and as a multiple of how far MetaWorld is from itself when its start is nudged. A start must
# be equal without that.
TOLERANCE = Apart(start=2e-3, observation=1e-2, reward=0.1, success=0.01)
TIMES = 3


class Twin:
    """A simulator of MetaWorld that begins every episode where the one of EnvPool with this seed does.

    EnvPool draws with C++'s `mt19937` and `uniform_real_distribution`, of which NumPy has the first.

    Args:
        simulator: of the task.
        drawing: another, in which vectors are drawn until the task likes them.
        seed: of EnvPool's.
    """

    def __init__(self, simulator: Any, drawing: Any, seed: int):
        self.env, self._drawing = simulator, drawing
        self._generator = np.random.RandomState(seed)
        self._last: np.ndarray | None = None

    def begin(self) -> np.ndarray:
        """Begin the next episode: its first observation [39]."""
        # The hand settles among objects where they were before: in EnvPool those of the last episode.
        if self._last is not None:
            self.env.reset_model()
        self._drawing._get_state_rand_vec = self._draw
        self._drawing.reset_model()
        assert self._last is not None
        self.env._get_state_rand_vec = self._last.copy
        self.env.curr_path_length = 0
        observation, _ = MujocoEnv.reset(self.env)
        self.env._prev_obs = observation[:18].copy()
        observation[18:36] = observation[:18]
        return np.asarray(observation)

    def nudge(self, rng: np.random.Generator) -> None:
        """Move every joint by a little."""
        data = self.env.data
        self.env.set_state(data.qpos + NUDGE * rng.standard_normal(data.qpos.shape), data.qvel.copy())

    def _draw(self) -> np.ndarray:
        space = self._drawing._random_reset_space
        words = self._generator.randint(0, 2**32, size=(len(space.low), 2), dtype=np.uint32).astype(float)
        # u = (w₀ + 2³² w₁) / 2⁶⁴
        self._last = (words[:, 0] + 2.0**32 * words[:, 1]) / 2.0**64 * (space.high - space.low) + space.low
        return self._last


class Twins:
    """Twins of a pool's simulators, with the interface of a pool.

    Args:
        task: one of the fifty.
        seeds: of the pool's simulators [N].
        nudged: whether they begin a little beside.
    """

    def __init__(self, task: str, seeds: range, nudged: bool = False):
        *simulators, drawing = MetaWorldEnv(task, len(seeds) + 1).simulators
        self._twins = [Twin(simulator, drawing, seed) for simulator, seed in zip(simulators, seeds, strict=True)]
        self._nudged, self._rng = nudged, np.random.default_rng(0)

    def reset(self) -> np.ndarray:
        """Begin new episodes: their first observations [N, 39]."""
        observations = np.stack([twin.begin() for twin in self._twins])
        for twin in self._twins if self._nudged else ():
            twin.nudge(self._rng)
        return observations

    def step(self, actions: np.ndarray) -> Answer:
        """Step each by its action [N, 4]."""
        found = [twin.env.step(action) for twin, action in zip(self._twins, actions, strict=True)]
        observation, reward, terminated, truncated, info = zip(*found, strict=True)
        success = np.array([each["success"] > 0 for each in info])
        return Answer(np.stack(observation), np.array(reward), np.array(terminated), np.array(truncated), success)


def compare(task: str, scripted: bool) -> tuple[Apart, Apart]:
    """How far EnvPool is apart from MetaWorld, whose observations are acted on; and MetaWorld from itself once nudged.

    Args:
        task: one of the fifty.
        scripted: whether MetaWorld's own policy for the task acts, which touches things and succeeds; else at random.
    """
    seeds = range(SIMULATORS)
    truth, others = Twins(task, seeds), (Pool(metaworld_id(task), seeds), Twins(task, seeds, nudged=True))
    act = _actor(task, scripted)
    found: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(EPISODES):
        seen = truth.reset()
        starts = [np.abs(other.reset() - seen).max() for other in others]
        for _ in range(STEPS):
            actions = act(seen)
            expected, answers = truth.step(actions), [other.step(actions) for other in others]
            for rows, start, answer in zip(found, starts, answers, strict=True):
                rows.append((start, *_differences(expected, answer)))
            seen = expected.observation
    native, own = (_summary(np.array(rows)) for rows in found)
    return native, own


def _differences(expected: Answer, answer: Answer) -> tuple[float, float, float]:
    observation, reward = (np.abs(a - b).max() for a, b in zip(expected[:2], answer[:2], strict=True))
    return observation, reward, float(np.mean(expected.success != answer.success))


def _summary(rows: np.ndarray) -> Apart:
    """Of rows [steps, 4]: the largest of each column, of the last the mean; to two digits."""
    return Apart(*(float(f"{value:.2g}") for value in (*rows[:, :3].max(0), rows[:, 3].mean())))


def measure(task: str) -> dict[str, Any]:
    """How a task differs from MetaWorld's own, if it does, and by how much.

    Returns:
        `differs`: in words, None where all is within the tolerances; and what was measured with random actions and with
        MetaWorld's policy for the task, and for these also how far MetaWorld is apart from itself once nudged.
    """
    found: dict[str, Any] = {}
    beyond = []
    for name, scripted in (("random", False), ("scripted", True)):
        native, own = compare(task, scripted)
        found |= {name: asdict(native), f"{name}_nudged": asdict(own)}
        beyond += [f"{what} by {value:g} with {name} actions" for what, value in _beyond(native, own)]
    return {"differs": "; ".join(beyond) or None} | found


def _beyond(native: Apart, own: Apart) -> Iterator[tuple[str, float]]:
    for what, value in asdict(native).items():
        own_allows = 0.0 if what == "start" else TIMES * getattr(own, what)
        if value > max(getattr(TOLERANCE, what), own_allows):
            yield what, value


def _actor(task: str, scripted: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Actions [N, 4] f32 for observations [N, 39]."""
    if scripted:
        policy = ENV_POLICY_MAP[task]()
        return lambda seen: np.clip([policy.get_action(each) for each in seen], -1, 1).astype(np.float32)
    rng = np.random.default_rng(0)
    return lambda seen: rng.uniform(-1, 1, (len(seen), 4)).astype(np.float32)


def run() -> dict[str, Any]:
    """All fifty tasks, held against what is shipped."""
    found = {task: measure(task)["differs"] for task in ALL_V3_ENVIRONMENTS}
    same = [task for task, differs in found.items() if differs is None]
    return {"same": len(same), "ok": all(equality.exception(task) is not None for task in found if task not in same)}


def main() -> None:
    """Measure the tasks named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulators", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="all fifty unless given")
    parser.add_argument("--write", action="store_true", help=f"keep what is found in {equality.MEASURED.name}")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="metaworld")
    tasks: dict[str, Any] = {}
    for task in arguments.tasks or ALL_V3_ENVIRONMENTS:
        tasks[task] = measure(task)
        print(json.dumps({"task": task} | tasks[task]), flush=True)
    if arguments.write:
        versions = {package: metadata.version(package) for package in equality.COMPARED}
        whole = {"versions": versions, "tolerance": asdict(TOLERANCE), "times": TIMES, "nudge": NUDGE, "tasks": tasks}
        equality.MEASURED.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
