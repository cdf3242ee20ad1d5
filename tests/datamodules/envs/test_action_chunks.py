"""Chunks of actions: what is executed of one, and where an episode that ends inside it leaves the environment."""

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import SerialEnv
from torchrl.envs.custom import ToyVLAEnv

from datamodules.collect.evaluation import Evaluation, evaluate
from datamodules.envs.action_chunks import ChunkEnv
from datamodules.envs.seeding import seed_env
from datamodules.vla import ToyVLA
from gipo.vla.observations import decode_instructions
from gipo.vla.policies import VLATokenPolicy

TASK = ToyVLA(chunk=4, success_steps=3, max_steps=10)


def chunks(env: ChunkEnv, state: TensorDict, errors: list[list[float]]) -> TensorDict:
    """One decision: the target plus these errors, [N, H], in every dimension."""
    target = state["observation", "state"][:, None, 2:4]
    state["action"] = (target + torch.tensor(errors).unsqueeze(-1)).clamp(-1, 1)
    return env.step(state)["next"]


def test_an_episode_that_ends_inside_a_chunk_skips_the_rest_of_it() -> None:
    env = TASK.make(3, seed=0)
    state = env.reset()
    assert set(decode_instructions(state["observation", "instruction"])) == {"push the T-shaped block onto the target"}
    far = 0.4
    first = chunks(env, state, [[0.0, 0.0, 0.0, far], [far, 0.0, 0.0, far], [far] * 4])
    assert first["executed"].tolist() == [[True, True, True, False], [True] * 4, [True] * 4]
    assert first["terminated"].flatten().tolist() == [True, False, False]
    assert first["success"].flatten().tolist() == [True, False, False]
    # −‖a − target‖ of each executed step
    length = -far * 2**0.5
    torch.testing.assert_close(
        first["reward"], torch.tensor([[0, 0, 0, 0], [length, 0, 0, length], [length] * 4]), atol=1e-6, rtol=0
    )
    assert torch.equal(first["observation", "state"][0, :2], first["observation", "state"][0, 2:])  # its third action


def test_a_time_limit_truncates_inside_a_chunk_and_a_reset_renews_only_what_ended() -> None:
    env = TASK.make(2, seed=0)
    far = [[0.4] * 4] * 2
    state = env.reset()
    for _ in range(2):
        state = chunks(env, state, far)
    before = state["observation", "state"].clone()
    state = env.reset(state.set("_reset", torch.tensor([[True], [False]])))
    assert state["step"].flatten().tolist() == [0, 2]
    assert torch.equal(state["observation", "state"][1], before[1])
    assert not torch.equal(state["observation", "state"][0, 2:], before[0, 2:])
    last = chunks(env, state, far)
    assert last["step"].flatten().tolist() == [1, 3]
    assert last["executed"].tolist() == [[True] * 4, [True, True, False, False]]  # 10 = 4 + 4 + 2
    assert last["truncated"].flatten().tolist() == [False, True]
    assert last["terminated"].flatten().tolist() == [False, False]


def test_environments_that_are_a_batch_of_processes_step_alike() -> None:
    def single() -> ToyVLAEnv:
        return ToyVLAEnv(2, 4, success_steps=3)

    env = ChunkEnv(SerialEnv(2, single), 4, 10)
    seed_env(env, 0)
    state = env.reset()
    following = chunks(env, state, [[0.0] * 4, [0.4] * 4])
    assert following["executed"].tolist() == [[True, True, True, False], [True] * 4]
    assert following["done"].flatten().tolist() == [True, False]
    assert decode_instructions(following["observation", "instruction"])[1].startswith("push")


class Passing(ToyVLAEnv):
    """Succeeds at every step at which the target is met, and goes on."""

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        found = super()._step(tensordict)
        return found.update({name: torch.zeros_like(found["done"]) for name in ("done", "terminated")})


def test_a_success_that_does_not_last_is_one_and_is_told_from_one_at_the_end() -> None:
    env = ChunkEnv(Passing(2, 4, success_steps=1, batch_size=[3]), 4, 16)
    seed_env(env, 0)
    first = chunks(env, env.reset(), [[0.4, 0.0, 0.4, 0.4], [0.4] * 4, [0.4, 0.4, 0.4, 0.0]])
    assert first["success"].flatten().tolist() == [True, False, True]
    assert first["success_last"].flatten().tolist() == [False, False, True]
    policy = VLATokenPolicy(TASK.spaces(env))
    found = evaluate(env, policy, 9, Evaluation(seed=0))
    assert (found["success"] | ~found["success_last"]).all()
    assert (found["success"] & ~found["success_last"]).any()
