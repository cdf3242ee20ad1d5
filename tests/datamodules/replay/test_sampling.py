"""Samplers whose options do not fit the buffer are told as such."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, RandomSampler, TensorDictReplayBuffer
from torchrl.data.replay_buffers import ConsumingSampler, Sampler, SliceSampler

from datamodules.replay.sampling import drawn
from gipo.common.errors import UserError


def buffer(sampler: Sampler, size: int = 24) -> TensorDictReplayBuffer:
    """Transitions of episodes of 8 steps."""
    made = TensorDictReplayBuffer(storage=LazyTensorStorage(32), sampler=sampler, generator=torch.Generator())
    done = (torch.arange(size) % 8 == 7).unsqueeze(-1)
    if size:
        made.extend(TensorDict({"episode": torch.arange(size) // 8, "next": {"done": done}}, [size]))
    return made


def test_slices_that_fit_are_drawn() -> None:
    assert len(drawn(buffer(SliceSampler(slice_len=4)), 16, 0)) == 16


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (SliceSampler(num_slices=1, traj_key="episode"), "sufficient length"),
        (SliceSampler(slice_len=5), "divisible"),
        (ConsumingSampler(), "empty storage"),
    ],
    ids=["no episode is as long", "no whole number of slices", "all are used up"],
)
def test_a_sampler_that_cannot_draw_is_named_with_its_reason(sampler: Sampler, said: str) -> None:
    named = f"data.sampler={type(sampler).__name__} cannot draw .* of the .* transitions that there are: .*{said}"
    made = buffer(sampler)
    with pytest.raises(UserError, match=named):
        [drawn(made, 16, 0) for _ in range(3)]


def test_a_sampler_that_draws_nothing_is_not_asked_for_ever() -> None:
    class Nothing(RandomSampler):
        def sample(self, storage: object, batch_size: int) -> tuple[torch.Tensor, dict]:
            return torch.zeros(0, dtype=torch.int64), {}

    with pytest.raises(UserError, match="Nothing cannot draw 16 of the 24 transitions that there are: it draws none"):
        drawn(buffer(Nothing()), 16, 0)


def test_what_goes_wrong_in_uniform_sampling_is_no_fault_of_a_sampler() -> None:
    with pytest.raises(RuntimeError, match="empty storage"):
        drawn(buffer(RandomSampler(), 0), 16, 0)
