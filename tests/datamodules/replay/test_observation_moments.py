"""The moments of a policy that has seen nothing: of observations that episodes are made of."""

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from datamodules.replay.observation_moments import look_around
from gipo.common.errors import UserError
from gipo.policies import Spaces, TokenPolicy

N, HORIZON = 4, 10


class Clock(EnvBase):
    """Shows the step of its episode; where it `rests`, a simulator stays at its end until all begin anew."""

    def __init__(self, rests: bool):
        super().__init__(batch_size=torch.Size([N]))
        self.rests, self.time = rests, torch.zeros(N, 1)
        self.observation_spec = Composite(observation=Unbounded((N, 1)), shape=(N,))
        self.action_spec = Bounded(-1, 1, (N, 1))
        self.reward_spec = Unbounded((N, 1))
        self.done_spec = Categorical(2, (N, 1), dtype=torch.bool)

    def _reset(self, tensordict: TensorDictBase | None = None, **options: object) -> TensorDict:
        partial = tensordict is not None and "_reset" in tensordict.keys()
        if not partial:
            self.time[:] = 0
        elif not self.rests:
            self.time[tensordict["_reset"]] = 0  # type: ignore[index]
        return TensorDict({"observation": self.time.clone(), "done": torch.zeros(N, 1, dtype=torch.bool)}, [N])

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        self.time = (self.time + 1).clamp(max=HORIZON)
        found = {"observation": self.time.clone(), "reward": torch.zeros(N, 1), "done": self.time == HORIZON}
        return TensorDict(found, [N])

    def _set_seed(self, seed: int | None) -> None: ...


def test_simulators_that_rest_are_not_looked_at_while_they_do() -> None:
    found = []
    for rests in (False, True):
        policy = TokenPolicy(Spaces(1, (-1.0,), (1.0,)), bins=3)
        look_around(policy, Clock(rests), 3 * HORIZON * N, seed=0)
        assert policy.normaliser is not None
        found.append((float(policy.normaliser.count), float(policy.normaliser.mean)))
    assert found[0] == found[1] == (3 * HORIZON * N, pytest.approx((HORIZON - 1) / 2))


class Broken(Clock):
    """Its second simulator observes nothing from the third step on."""

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        found = super()._step(tensordict)
        found["observation"][1, self.time[1] >= 3] = torch.nan
        return found


def test_what_is_no_observation_is_not_made_moments_of() -> None:
    """They would be none from there on, and the first transition, whose log-prob is none then, had the blame."""
    policy = TokenPolicy(Spaces(1, (-1.0,), (1.0,)), bins=3)
    with pytest.raises(UserError, match=r"non-finite observation in simulator 1, 3 steps after .*: \[nan\]"):
        look_around(policy, Broken(rests=False), HORIZON * N, seed=0)
