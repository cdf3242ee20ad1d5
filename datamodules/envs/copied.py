"""Simulators of somebody's own, which may answer with memory that they write over at their next step.

A collector keeps what it is given until a segment is whole: without copies, every observation would become the last.
Evaluation reads a step after the next episode has begun.
"""

from tensordict import TensorDictBase
from torchrl.envs import EnvBase, Transform, TransformedEnv

from datamodules.envs.simulation import Simulation, Wrapped

OURS = f"{__name__.partition('.')[0]}."


class Copied(Wrapped):
    """A task whose answers and actions are copied."""

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """The task's simulators, whose memory is their own."""
        return TransformedEnv(self.task.make(num_envs, seed), Copies(), auto_unwrap=False)

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        """The task's simulators of evaluation, likewise."""
        return TransformedEnv(self.task.make_evaluation(num_envs, seed), Copies(), auto_unwrap=False)


class Copies(Transform):
    """Copies what an environment answers, and the action that it is given."""

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return tensordict_reset.clone()

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        return next_tensordict.clone()

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set("action", tensordict["action"].clone())


def copied(task: Simulation) -> Simulation:
    """The task, and one that copies where it is not ours."""
    return task if type(task).__module__.startswith(OURS) else Copied(task)
