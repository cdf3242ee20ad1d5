"""Bytes a transition takes in the replay buffer, for the token policy with and without stored parameters.

Real transitions of `reach-v3` go through collector and buffer; what counts is the storage of every tensor the buffer
keeps, divided by its capacity.
"""

from contextlib import closing
from typing import Any

from datamodules.advantages import GAE
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import spaces_of
from datamodules.envs.tasks import simulation
from datamodules.replay.ring import Replay
from gipo.policies import TokenPolicy

BOUND = 600


def run(capacity: int = 1024) -> dict[str, Any]:
    """Bytes per transition of a full buffer."""
    bare, with_params = (_bytes_per_transition(capacity, store_params) for store_params in (False, True))
    return {
        "bytes_per_transition": bare,
        "with_params_bytes_per_transition": with_params,
        "bound": BOUND,
        "ok": bare <= BOUND,
    }


def _bytes_per_transition(capacity: int, store_params: bool) -> float:
    task = simulation("reach-v3")
    with closing(task.make(1, seed=0)) as env:
        policy = TokenPolicy(spaces_of(env), bins=256)  # the authors', whose regimes store distributions
    with closing(InProcessRollouts(Collection(task, 4, capacity, policy, store_params))) as rollouts:
        replay = Replay(capacity, GAE())
        replay.extend(rollouts.collect().exclude(("next", "success")), policy)
    assert len(replay) == capacity
    # Storages, not elements: a view would hide what it keeps alive.
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in replay.buffer[:].values(include_nested=True, leaves_only=True)
    }
    return sum(storages.values()) / capacity
