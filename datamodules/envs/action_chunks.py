"""Chunks of actions: an environment whose decisions are each a chunk, executed row by row."""

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from datamodules.envs.seeding import begin_episodes
from gipo.common.errors import UserError
from gipo.vla.observations import INSTRUCTION_BYTES, encode_instructions

SEEN = ("image", "state")  # of an observation, beside the instruction
BESIDE = ("privileged",)  # what a policy does not get, where there is such a thing


class ChunkEnv(EnvBase):
    """An environment with TorchRL's VLA keys, stepped by chunks of H actions, as the data contract has it.

    Reads `action` [N, H, D] and executes its rows one after another; an episode that ends inside a chunk skips the rest
    of it. Beside `observation` (`image`, `state` and the encoded `instruction`, after the last executed action), what
    `env` says is `privileged` and `step` (decisions since the episode began), it gives

        reward        [N, H] f32     of each step, 0 where it was not executed
        executed      [N, H] bool    which were
        success       [N, 1] bool    at any step of the decision
        success_last  [N, 1] bool    at the last step that was executed

    Args:
        env: batch size [N]; honours TorchRL's `_step` mask, as all of TorchRL's batched environments do.
        chunk: H.
        max_steps: steps after which an episode is truncated; None leaves that to `env`.
    """

    def __init__(self, env: EnvBase, chunk: int, max_steps: int | None = None):
        super().__init__(batch_size=env.batch_size)
        if len(env.batch_size) != 1:
            raise UserError(f"a chunk environment needs an environment of batch size [N], got {env.batch_size}")
        self.env, self.chunk, self.max_steps = env, chunk, max_steps
        n = env.batch_size[0]
        seen, action = env.observation_spec["observation"], env.action_spec
        self.observation_spec = Composite(
            observation=Composite(
                **{key: seen[key].clone() for key in SEEN},
                instruction=Unbounded((n, INSTRUCTION_BYTES), dtype=torch.int64),
                shape=(n,),
            ),
            success=Binary(1, shape=(n, 1), dtype=torch.bool),
            success_last=Binary(1, shape=(n, 1), dtype=torch.bool),
            step=Unbounded((n, 1), dtype=torch.int64),
            executed=Binary(chunk, shape=(n, chunk), dtype=torch.bool),
            shape=(n,),
        )
        self._beside = [key for key in BESIDE if key in env.observation_spec.keys()]
        for key in self._beside:
            self.observation_spec[key] = env.observation_spec[key].clone()
        low, high = (bound.unsqueeze(1).expand(n, chunk, -1) for bound in (action.space.low, action.space.high))
        self.action_spec = Bounded(low, high, shape=low.shape)
        self.reward_spec = Unbounded((n, chunk))
        flag = Binary(1, shape=(n, 1), dtype=torch.bool)
        self.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=(n,))
        self._elapsed = torch.zeros(n, 1, dtype=torch.int64)
        self._decisions = torch.zeros(n, 1, dtype=torch.int64)
        self._state: TensorDictBase | None = None  # the inner environment's, as its own next step takes it
        self._instructions: tuple[Any, Tensor] = (None, torch.empty(0))

    def _set_seed(self, seed: int | None) -> None:
        self.env.set_seed(seed)

    def begin_with(self, numbers: Sequence[int], seed: int) -> None:
        """The next full reset begins these episodes of the evaluation with this seed, as far as `env` can."""
        begin_episodes(self.env, numbers, seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        chosen = None if tensordict is None else tensordict.get("_reset", None)
        if chosen is None or self._state is None:
            chosen = torch.ones_like(self._elapsed, dtype=torch.bool)
            self._state = self.env.reset()
        else:
            self._state = self.env.reset(self._state.clone(False).set("_reset", chosen))
        for counter in (self._elapsed, self._decisions):
            counter.masked_fill_(chosen, 0)
        none = torch.zeros(self.action_spec.shape[:-1], dtype=torch.bool)
        return self._tensordict(none, torch.zeros_like(self._elapsed, dtype=torch.bool), self._state["success"])

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        assert self._state is not None
        alive = torch.ones_like(self._elapsed, dtype=torch.bool)
        truncated, solved = torch.zeros_like(alive), torch.zeros_like(alive)
        executed = torch.zeros(self.action_spec.shape[:-1], dtype=torch.bool)
        reward = torch.zeros(executed.shape)
        for step, action in enumerate(tensordict["action"].unbind(1)):
            asked = self._state.clone(False).set("action", action)
            if not alive.all():
                asked.set("_step", alive.squeeze(-1))
            following = self.env.step(asked)["next"]
            executed[:, step] = alive.squeeze(-1)
            reward[:, step] = torch.where(alive, following["reward"], 0.0).squeeze(-1)
            solved |= alive & following["success"]
            self._elapsed += alive
            self._state = self._after(following, alive)
            late = alive & (self._elapsed >= self.max_steps) if self.max_steps else torch.zeros_like(alive)
            truncated |= alive & (late | following.get("truncated", late)) & ~following["terminated"]
            alive = alive & ~(truncated | following["done"])
            if not alive.any():
                break
        self._decisions += 1
        return self._tensordict(executed, truncated, solved).set("reward", reward)

    def _after(self, following: TensorDictBase, alive: Tensor) -> TensorDictBase:
        """The state to go on from: those whose episode has ended stay as they ended."""
        following = following.exclude("reward")
        if alive.all():
            return following
        assert self._state is not None
        return torch.where(alive.squeeze(-1), following, self._state)

    def _tensordict(self, executed: Tensor, truncated: Tensor, solved: Tensor) -> TensorDict:
        assert self._state is not None
        terminated = self._state["terminated"] & ~truncated
        fields = {
            "observation": self._state["observation"].select(*SEEN).clone().set("instruction", self._instruction()),
            "success": solved.clone(),
            "success_last": self._state["success"].clone(),
            **{key: self._state[key].clone() for key in self._beside},
            "step": self._decisions.clone(),
            "executed": executed,
            "terminated": terminated,
            "truncated": truncated,
            "done": terminated | truncated,
        }
        return TensorDict(fields, batch_size=self.batch_size)

    def _instruction(self) -> Tensor:
        """The encoded instruction of each simulator, [N, bytes]."""
        assert self._state is not None
        found = self._state["language_instruction"]
        texts = [found] * len(self._elapsed) if isinstance(found, str) else list(found)
        if self._instructions[0] != texts:
            self._instructions = (texts, encode_instructions(texts))
        return self._instructions[1].clone()

    def close(self, **kwargs: Any) -> None:
        """Close the simulators."""
        self.env.close(**kwargs)
        super().close(**kwargs)
