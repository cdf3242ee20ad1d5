"""The generators of a process in a checkpoint, also where it is resumed on another machine."""

import pytest
import torch

from datamodules.collect.random_state import generator_states, restore_generators


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
