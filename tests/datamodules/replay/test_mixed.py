"""The part of a batch that comes from logs: how large it is, when it is valued, and from where it goes on."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from datamodules.advantages import GAE
from datamodules.collect.random_state import seed_of
from datamodules.replay.logged import LogReplay
from datamodules.replay.mixed import LoggedShare
from gipo.common.errors import UserError
from gipo.policies import Policy, TokenPolicy
from tests.datamodules.replay.test_ring import BINS, SPACES, episode

SEED = 4


class Made:
    """Stands in for logs that were ingested; counts how often it is read, and for whom."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.seen = lambda kept: kept + 1  # what a policy takes of what is kept
        self.store = SimpleNamespace(facts=SimpleNamespace(key="these"))

    def frames(self, policy: Policy, needs_behaviour: bool) -> TensorDict:
        self.asked.append(needs_behaviour)
        return episode(0, range(12), "truncated", version=3)


def share(part: float = 0.25) -> tuple[LoggedShare, Made]:
    logs: Any = Made()
    return LoggedShare(logs, part, GAE(), 0.5), logs


def policy(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    made = TokenPolicy(SPACES, bins=BINS, normalise=False)
    torch.nn.init.normal_(made.critic_parameters()[-1])
    return made


def drawn(one: LoggedShare, by: Policy, refresh: bool, needs: bool = True) -> TensorDict:
    return one.sample(by, 3, 16, refresh, needs, SEED)


def test_a_batch_has_its_share_of_logged_transitions_valued_by_the_critic_of_now() -> None:
    (one, logs), critic = share(), policy()
    found = drawn(one, critic, refresh=True)
    assert found.shape == (3, 4)
    # drawn by a seed of its own, and with the reward's factor
    expected = LogReplay(logs.frames(critic, True), GAE(), None, 0.5, seed_of(SEED, 1), seen=logs.seen)
    expected.refresh(critic)
    for name, value in expected.sample(3, 4, 0).items():
        assert torch.equal(found[name], value), name


def test_logs_are_read_once_and_valued_when_it_is_due_and_at_first() -> None:
    (one, logs), values = share(1.0 - 1 / 16), []
    for seed, refresh in ((0, False), (1, False), (2, True), (3, False)):
        drawn(one, policy(seed), refresh, needs=False)
        values.append(one.state_dict()["replay"]["value_target"].clone())
    assert logs.asked == [False]
    assert values[0].isfinite().all()
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])
    assert torch.equal(values[2], values[3])


def test_drawing_goes_on_from_its_state_and_values_nothing_anew() -> None:
    (one, _), critic = share(), policy()
    assert one.state_dict() == {"key": "these"}
    drawn(one, critic, refresh=True)
    state = one.state_dict()
    kept = {"key": state["key"], "replay": {name: value.clone() if isinstance(value, torch.Tensor) else value
                                            for name, value in state["replay"].items()}}  # fmt: skip
    expected = drawn(one, policy(1), refresh=False)
    for given in (kept, {"key": "these"}, None):
        (again, _) = share()
        again.load_state_dict(given)
        assert again.state_dict() == (given or {"key": "these"})
        found = drawn(again, policy(1), refresh=False)
        assert all(torch.equal(found[name], expected[name]) for name in expected.keys()) == (given is kept)
        assert found["advantage"].isfinite().all()


@pytest.mark.parametrize(("part", "batch", "count"), [(0.25, 16, 4), (0.35, 10, 4), (0.34, 10, 3), (0.5, 3, 2)])
def test_a_share_is_rounded_to_whole_transitions(part: float, batch: int, count: int) -> None:
    (one, _) = share(part)
    assert one.part(batch) == count
    one.refuse_bad_mix(batch, store_params=False)
    with pytest.raises(UserError, match=r"^data\.store_params=true cannot be mixed with data\.logs"):
        one.refuse_bad_mix(batch, store_params=True)


@pytest.mark.parametrize(("part", "count"), [(0.01, 0), (0.99, 10), (1.2, 12), (-0.1, -1)])
def test_a_share_that_leaves_none_of_a_kind_is_refused(part: float, count: int) -> None:
    (one, _) = share(part)
    with pytest.raises(UserError, match=rf"^data\.logs_share={part} makes {count} of 10 transitions of a batch logged"):
        one.refuse_bad_mix(10, store_params=False)
