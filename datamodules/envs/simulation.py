"""The contract between a data module and what it can simulate, and a task that ends its episodes sooner.

Every environment has batch size [N] and, beside TorchRL's own keys,

    observation [N, O] f32      raw; of a policy that sees, a nested TensorDict
    action      [N, D] f32      environment units; [N, H, D] where a decision is a chunk of H actions
    step        [N, 1] int64    decisions since the episode began
    terminated, truncated       [N, 1] bool, beside `done`
    privileged  [N, G] f32      only where the task knows what its policies do not get: for a critic alone
    success     [N, 1] bool     only where the task has a notion of success; of a chunk, at any of its steps, and beside
                                it `success_last`, at the last of them
    task        [N, 1] int64    only where the task has several parts

Truncation and termination stay apart: a time limit sets `truncated` alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torchrl.data import Composite
from torchrl.envs import EnvBase, StepCounter, TransformedEnv

from datamodules.envs.seeding import seed_env
from deploy.runtime.validation import is_text
from gipo.common.errors import UserError
from gipo.common.faults import described
from gipo.common.terminal import say_once
from gipo.common.transition import MAX_CONTROL_RATE
from gipo.policies import Spaces

INTERFACE = ("observation_names", "observation_units", "action_names", "action_units", "control_rate_hz")
SHAPES = {"observation": "[N, O]", "reward": "[N, 1], [N, H] of a chunk", "step": "[N, 1]", "success": "[N, 1]"}
UNBOUNDED = torch.finfo(torch.float32).max  # what TorchRL writes for a bound that there is not


class Simulation(ABC):
    """A task as a batch of simulators; small, and picklable, as workers make their own simulators from it."""

    name: str  # what `data.task` asks for, and a checkpoint records
    simulator: str = "python"  # of those that simulate a task of this name; a checkpoint records it too

    @property
    @abstractmethod
    def horizon(self) -> int | None:
        """Decisions after which an episode is truncated, where there is such a limit."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tasks in the simulation; the key `task` of an environment is an index into them."""
        return (self.name,)

    @abstractmethod
    def make(self, num_envs: int, seed: int) -> EnvBase:
        """`num_envs` simulators behind one environment of batch size [num_envs], whose episodes follow from `seed`."""

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        """Simulators for evaluation, otherwise as `make` has them; of a benchmark, its own episodes in its order.

        The environment may have a method `begin_with(numbers, seed)`: the next full reset begins in simulator i the
        episode numbers[i] of the evaluation with this seed, which depends on both numbers and on nothing else.
        """
        return self.make(num_envs, seed)

    @abstractmethod
    def spaces(self, env: EnvBase) -> Spaces:
        """What a policy for an environment of `make` is built for."""

    @property
    @abstractmethod
    def interface(self) -> dict[str, Any] | None:
        """Names, units and rate of observations and actions, by INTERFACE, where they have true ones; None is allowed.

        What it leaves out an export fills in: `--rate`, and names `observation.0` … of unspecified unit.
        """


class SeededSimulation(Simulation):
    """A simulation that says which environment there is; seeding it and reading a policy's spaces off it follow."""

    @abstractmethod
    def environment(self, num_envs: int, evaluating: bool) -> EnvBase:
        """`num_envs` simulators behind one environment of batch size [num_envs], keys as this module says.

        Where a benchmark lays down episodes and `evaluating` is set, they are those, in its order.
        """

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """`num_envs` seeded simulators behind one environment.

        Raises:
            UserError: when `num_envs` is below 1.
        """
        return self._seeded(num_envs, seed, evaluating=False)

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        """Simulators of evaluation, otherwise as `make` has them."""
        return self._seeded(num_envs, seed, evaluating=True)

    def _seeded(self, num_envs: int, seed: int, evaluating: bool) -> EnvBase:
        refuse_no_simulators(num_envs)
        env = self.environment(num_envs, evaluating)
        seed_env(env, seed)
        return env

    def spaces(self, env: EnvBase) -> Spaces:
        """Sizes and bounds for a policy, read off the specs of `env`."""
        return spaces_of(env)


def spaces_of(env: EnvBase) -> Spaces:
    """Sizes and bounds for a policy, read off the specs of an environment with flat observations and actions."""
    action = env.action_spec
    low, high = action.space.low.flatten(0, -2)[0], action.space.high.flatten(0, -2)[0]
    return Spaces(env.observation_spec["observation"].shape[-1], tuple(low.tolist()), tuple(high.tolist()))


def refuse_bad_environment(env: EnvBase, task: Simulation) -> None:
    """Refuse an environment of anybody's task that is not what this module says.

    Raises:
        UserError: naming the task and the key.
    """
    of = f"the environment of {task.name}"
    if len(env.batch_size) != 1:
        raise UserError(f"{of} has the batch size {[*env.batch_size]}; it must be [N], of N simulators")
    for key, what in (("observation", "[N, O] f32"), ("step", "[N, 1] int64, decisions since the episode began")):
        if key not in env.full_observation_spec.keys():
            raise UserError(f"{of} has no {key}, {what}: its observation_spec has {', '.join(_names(env))}")
    specs = {"action": env.action_spec, "reward": env.reward_spec, "observation": env.observation_spec["observation"]}
    for key, spec in Composite(specs, shape=env.batch_size).items(include_nested=True, leaves_only=True):
        if spec.dtype.is_floating_point and spec.dtype != torch.float32:
            named = key if isinstance(key, str) else "/".join(key)
            raise UserError(f"{of} has {named} of {spec.dtype}; it must be torch.float32 (TorchRL: DoubleToFloat)")
    space: Any = getattr(env.action_spec, "space", None)
    if not hasattr(space, "low") or not ((space.low > -UNBOUNDED) & (space.high < UNBOUNDED)).all():
        raise UserError(f"{of} has actions of {type(env.action_spec).__name__}; they must be numbers within bounds")
    if env.action_spec.ndim < 2:
        raise UserError(f"{of} has actions of the shape {[*env.action_spec.shape]}; it must be [N, D], D may be 1")
    for key in ("terminated", "truncated"):
        if key not in env.full_done_spec.keys():
            raise UserError(f"{of} has no {key}, [N, 1] bool; torchrl.envs.StepCounter(max_steps=…) says `truncated`")
    for key, shape in SHAPES.items():
        spec = env.reward_spec if key == "reward" else env.full_observation_spec.get(key, None)
        if spec is not None and not isinstance(spec, Composite) and spec.ndim < 2:
            raise UserError(f"{of} has {key} of the shape {[*spec.shape]}; it must be {shape}")
    _refuse_bad_interface(task.interface, task.spaces(env), f"the interface of {task.name}")


def _refuse_bad_interface(said: Any, spaces: Any, of: str) -> None:
    """Refuse what no artifact could state: an export, and the robot, would after all the training."""
    if said is None:
        return
    if not isinstance(said, Mapping) or (strange := sorted(map(str, set(said) - set(INTERFACE)))):
        what = f"has {', '.join(strange)}" if isinstance(said, Mapping) else f"is {said!r}"
        raise UserError(f"{of} {what}; it is None, or a dict of {', '.join(INTERFACE)}")
    rate = said.get("control_rate_hz")
    if rate is not None and not (type(rate) in (int, float) and 0 < rate <= MAX_CONTROL_RATE):
        raise UserError(
            f"{of} says control_rate_hz={rate!r}; it must be a plain float above 0, at most {MAX_CONTROL_RATE}, Hz"
        )
    for key in INTERFACE[:4]:
        size = spaces.observation_size if key.startswith("observation") else len(spaces.action_low)
        words = said.get(key)
        if words is None:
            continue
        if not isinstance(words, (list, tuple)) or len(words) != size or not all(isinstance(one, str) for one in words):
            raise UserError(f"{of} says {key}={words!r}; it must be a list of {size} texts, one for each number")
        if not all(map(is_text, words)):
            what = 'each of 1 to 128 printable characters ("1" is the unit of a number without one)'
            raise UserError(f"{of} says {key}={words!r}; it must be a list of texts, {what}")
        if key.endswith("names") and len(set(words)) < size:
            raise UserError(f"{of} says {key}={words!r}; no name may stand twice")


def _names(env: EnvBase) -> list[str]:
    return sorted(map(str, env.full_observation_spec.keys()))


def close_or_say(close: Callable[[], object], task: str) -> None:
    """Close simulators of a task; what cannot be closed hides nothing and costs no run, but says so once."""
    try:
        close()
    except Exception as error:
        say_once(f"task {task!r} could not be closed: {described(error)}")


def refuse_no_simulators(num_envs: int) -> None:
    """Raise a UserError when an environment of no simulators is asked for."""
    if num_envs < 1:
        raise UserError(f"num_envs must be at least 1, got {num_envs}")


@dataclass(frozen=True)
class Wrapped(Simulation):
    """A task some of whose properties a subclass overrides; all others are the wrapped task's own.

    Args:
        task: the task that is wrapped.
    """

    task: Simulation

    name = property(attrgetter("task.name"))
    horizon = property(attrgetter("task.horizon"))
    simulator = property(attrgetter("task.simulator"))
    parts = property(attrgetter("task.parts"))
    interface = property(attrgetter("task.interface"))

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """Simulators that the task makes."""
        return self.task.make(num_envs, seed)

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        """Simulators that the task makes for evaluation."""
        return self.task.make_evaluation(num_envs, seed)

    def spaces(self, env: EnvBase) -> Spaces:
        """Sizes and bounds that the task says."""
        return self.task.spaces(env)


@dataclass(frozen=True)
class Shortened(Wrapped):
    """A task whose training episodes are truncated earlier; evaluation is the task's own.

    Args:
        task: the task that is wrapped.
        steps: decisions after which an episode is truncated, unless the task does so before.
    """

    steps: int

    @property
    def horizon(self) -> int:
        """Decisions after which a training episode is truncated: the earlier of both limits."""
        return self.steps if self.task.horizon is None else min(self.steps, self.task.horizon)

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """The task's simulators, with a counter that truncates."""
        return TransformedEnv(self.task.make(num_envs, seed), StepCounter(max_steps=self.steps))
