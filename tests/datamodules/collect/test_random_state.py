"""The generators of a process in a checkpoint, also where it is resumed on another machine."""

import pytest
import torch

from datamodules.collect.random_state import (
    generator_states,
    restore_generators,
    seed_of,
    seed_of_process,
    worker_seed,
)
from gipo.common.errors import UserError


def test_no_two_seeds_of_a_run_are_equal() -> None:
    """Neither of two workers, nor of a worker and of simulators that begin anew after an iteration."""
    workers = [worker_seed(7, index, generation) for index in range(64) for generation in range(3)]
    anew = [worker_seed(seed_of(7, iteration), index) for iteration in range(1, 65) for index in range(64)]
    assert workers[0] == 7
    assert len({*workers, *anew}) == len(workers) + len(anew)


def test_the_seed_of_the_process_is_the_one_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert seed_of_process() is None
    monkeypatch.setenv("PL_GLOBAL_SEED", "234")
    assert seed_of_process() == 234


@pytest.mark.parametrize("said", ["", "seven", "-1", "1.5", " 7", "٣", "²"])
def test_a_seed_of_the_process_that_is_no_number_is_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", said)
    with pytest.raises(UserError, match=rf"PL_GLOBAL_SEED must be a whole number from 0 on, got {said!r}; unset it"):
        seed_of_process()


def test_a_run_goes_on_where_there_are_fewer_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.Generator().manual_seed(0)
    saved = torch.Generator().manual_seed(1)
    for name, value in {
        "is_available": lambda: True, "device_count": lambda: 1, "default_generators": (there,),
        "random.is_initialized": lambda: True, "random._lazy_call": lambda call: call(),
    }.items():  # fmt: skip
        monkeypatch.setattr(f"torch.cuda.{name}", value)
    cuda = [saved.get_state(), torch.Generator().manual_seed(2).get_state()]
    monkeypatch.setattr("torch.cuda.get_rng_state_all", lambda: cuda)
    restore_generators(generator_states())
    assert torch.equal(there.get_state(), saved.get_state())
