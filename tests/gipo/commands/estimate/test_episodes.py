"""Steps and decisions of logs in rows and columns: what is kept, what counts, and by how much."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from gipo.commands.estimate.episodes import Logged, logged
from gipo.common.errors import UserError
from gipo.common.transition import HOLD, PERSON, POLICY


def steps(lengths: list[int], **changed: Any) -> TensorDict:
    """Episodes one after another, each step with reward 1, an observation of its own, and chosen by the policy."""
    count = sum(lengths)
    number = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    found: dict[str, Any] = {
        "episode": number,
        "step": torch.cat([torch.arange(length) for length in lengths]),
        "observation": torch.arange(count).float().unsqueeze(-1),
        "valid": torch.ones(count, dtype=torch.bool),
        "source": torch.full((count,), POLICY, dtype=torch.int8),
        "success": number % 2,
        "next": TensorDict({"reward": torch.ones(count)}, [count]),
    }
    return TensorDict(found | changed, [count])


def store(frames: TensorDict, parts: tuple[int, ...] = (), copies: tuple[int, ...] = ()) -> Any:
    """What is asked of a store: its steps, how many episodes, of which it has only parts, and which are copies."""
    facts = SimpleNamespace(episodes=len(frames["episode"].unique()), parts=parts, copies=copies)
    return SimpleNamespace(frames=frames, facts=facts)


def of(frames: TensorDict, x: torch.Tensor, discount: float = 1.0) -> Logged:
    return logged(store(frames), frames, x, discount)


def test_episodes_of_different_lengths_are_padded_with_nothing() -> None:
    x = torch.tensor([[0.1, 0.2], [0.0, 0.5], [1.0, 0.0], [0.0, -1.0], [0.25, 0.25]])
    found = of(steps([3, 2]), x, discount=0.5)
    ((episodes, _),) = found.episodes(found.reward)
    assert episodes.log_ratio == pytest.approx(np.array([[0.3, 0.5, 1.0], [-1.0, 0.5, 0.0]]))
    assert episodes.reward.tolist() == [[1, 0.5, 0.25], [1, 0.5, 0]]
    assert episodes.to_go.tolist() == [[1.75, 0.75, 0.25], [1.5, 0.5, 0]]
    x = np.array([0.3, 0.5, 1.0, -1.0, 0.5])
    assert found.kl == pytest.approx((np.exp(x) - 1 - x).mean())
    assert found.sampled == 5
    assert (len(found), found.persons, found.parts) == (2, 0, 0)


def test_kinds_of_reward_do_not_mix() -> None:
    found = of(steps([3, 2, 1, 2]), torch.randn(8, 1))
    both = found.episodes(found.reward, found.outcome)
    for (episodes, explained), reward in zip(both, (found.reward, found.outcome), strict=True):
        ((alone, share),) = found.episodes(reward)
        assert all(map(np.allclose, episodes, alone))
        assert explained == pytest.approx(share)


def test_success_is_a_reward_of_the_last_decision() -> None:
    found = of(steps([3, 2, 1, 2]), torch.zeros(8, 1))
    assert found.success.tolist() == [0, 1, 0, 1]
    assert found.outcome.tolist() == [0, 0, 0, 0, 1, 0, 0, 1]


def test_what_the_policy_did_not_choose_has_ratio_one() -> None:
    frames = steps([2, 2])
    frames["valid"][1] = False
    frames["valid"][2] = False
    frames["source"][2] = PERSON
    found = of(frames, torch.tensor([[-0.5], [math.nan], [-math.inf], [-0.25]]))
    assert found.log_ratio.tolist() == [-0.5, 0, 0, -0.25]
    assert found.kl == pytest.approx((math.exp(-0.5) - 0.5 + math.exp(-0.25) - 0.75) / 2)
    assert (found.sampled, found.persons) == (2, 1)


def test_an_episode_in_which_a_person_acted_twice_is_one_such_episode() -> None:
    frames, persons = steps([3, 2, 2]), [1, 2, 4]
    frames["valid"][persons] = False
    frames["source"][persons] = PERSON
    assert of(frames, torch.zeros(7, 1)).persons == 2


def test_episodes_that_the_source_has_in_part_are_left_out() -> None:
    frames = steps([3, 2, 2, 1])
    found = logged(store(frames, parts=(0, 2)), frames, torch.arange(8.0).unsqueeze(-1), 1.0)
    assert (len(found), found.parts) == (2, 2)
    assert found.log_ratio.tolist() == [3, 4, 7]
    assert found.success.tolist() == [1, 1]


def test_an_episode_counts_once_however_often_it_was_driven_again_with_the_same_noise() -> None:
    """Intervals would shrink by what nobody saw."""
    frames = steps([3, 2, 2, 1])
    found = logged(store(frames, parts=(2,), copies=(1, 2)), frames, torch.arange(8.0).unsqueeze(-1), 1.0)
    assert (len(found), found.parts, found.copies) == (2, 1, 1)
    assert found.log_ratio.tolist() == [0, 1, 2, 7]


def test_an_episode_with_steps_that_are_in_no_decision_is_left_out() -> None:
    frames = steps([3, 2, 2])
    found = logged(store(frames), frames[torch.tensor([0, 2, 3, 4, 5, 6])], torch.zeros(6, 1), 1.0)
    assert (len(found), found.parts) == (2, 1)


def test_no_whole_episode_is_refused() -> None:
    frames = steps([2])
    with pytest.raises(UserError, match="no episode from its first step to its end"):
        logged(store(frames, parts=(0,)), frames, torch.zeros(2, 1), 1.0)


def test_episodes_in_which_nobody_sampled_are_left_out() -> None:
    """They have a weight of 1 whatever the policy is, and would be taken for as many that tell of it."""
    frames = steps([2, 2, 2])
    frames["valid"][2:4] = False
    found = of(frames, torch.arange(6.0).unsqueeze(-1))
    assert (len(found), found.unsampled, found.parts) == (2, 1, 0)
    assert found.log_ratio.tolist() == [0, 1, 4, 5]
    assert found.success.tolist() == [0, 0]


def test_an_episode_that_ended_while_control_was_handed_over_counts() -> None:
    """To leave it out for that would leave out those that end early, which are often those that succeed."""
    frames = steps([2, 2, 2, 2, 2])
    frames["valid"][2:] = False
    frames["source"][2:4] = HOLD
    frames["source"][6:8] = torch.tensor([HOLD, POLICY])  # handed over, and then the most likely action
    frames["source"][8:] = torch.tensor([HOLD, PERSON])  # a demonstration
    found = of(frames, torch.arange(10.0).unsqueeze(-1))
    assert (len(found), found.unsampled, found.sampled) == (2, 3, 2)
    assert found.log_ratio.tolist() == [0, 1, 0, 0]


def test_more_cells_than_memory_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gipo.commands.estimate.episodes.CELLS", 5)
    of(steps([2, 1]), torch.zeros(3, 1))
    with pytest.raises(UserError, match=r"2 episodes, the longest of 3 decisions, are more than 5 cells"):
        of(steps([3, 1]), torch.zeros(4, 1))


def test_what_nobody_sampled_says_nothing_of_another_policy() -> None:
    frames = steps([2, 2])
    frames["valid"][:] = False
    with pytest.raises(UserError, match="no decision in these logs was sampled"):
        of(frames, torch.zeros(4, 1))


def test_a_log_ratio_that_is_no_number_is_refused() -> None:
    with pytest.raises(UserError, match="a log-ratio is no number"):
        of(steps([2]), torch.tensor([[0.0], [math.nan]]))


def test_the_kl_is_of_log_ratios_of_at_most_5_nats() -> None:
    assert of(steps([2]), torch.tensor([[0.0], [9.0]])).kl == pytest.approx((math.exp(5) - 1 - 5) / 2)


def test_an_action_that_the_policy_never_takes_has_no_weight() -> None:
    found = of(steps([1, 1]), torch.tensor([[-math.inf], [0.0]]))
    assert math.exp(found.log_ratio[0]) < 1e-100
    assert np.isfinite(found.log_ratio).all()


def test_decisions_on_chunks_are_joint_and_their_steps_are_discounted_one_by_one() -> None:
    # one episode of five steps in two decisions, of three actions and, cut short, of two
    whole = steps([5])
    executed = torch.tensor([[True, True, True], [True, True, False]])
    frames = TensorDict(
        {
            "episode": torch.zeros(2, dtype=torch.int64),
            "observation": TensorDict({"state": torch.zeros(2, 4), "picture": torch.zeros(2, 1)}, [2]),
            "valid": torch.tensor([[True, True, False], [True, True, False]]),
            "executed": executed,
            "source": torch.tensor([[POLICY, POLICY, PERSON], [POLICY, POLICY, POLICY]]),
            "success": torch.zeros(2, dtype=torch.int64),
            "next": TensorDict({"reward": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]])}, [2]),
        },
        [2],
    )
    x = torch.tensor([[[0.1], [0.2], [9.0]], [[0.3], [0.4], [9.0]]])
    found = logged(store(whole), frames, x, discount=0.5)
    assert found.log_ratio == pytest.approx(np.array([0.3, 0.7]))
    assert found.reward.tolist() == [1 + 2 / 2 + 3 / 4, 4 / 8 + 5 / 16]
    assert found.seen.shape == (2, 4)
    assert found.persons == 1


def test_the_steps_of_every_episodes_chunks_are_discounted_from_its_own_beginning() -> None:
    # two episodes, of three steps in decisions of two and one, and of two steps in one decision
    frames = TensorDict(
        {
            "episode": torch.tensor([0, 0, 1]),
            "observation": torch.zeros(3, 1),
            "valid": torch.ones(3, 2, dtype=torch.bool),
            "executed": torch.tensor([[True, True], [True, False], [True, True]]),
            "source": torch.full((3, 2), POLICY),
            "success": torch.zeros(3, dtype=torch.int64),
            "next": TensorDict({"reward": torch.tensor([[1.0, 2.0], [4.0, 99.0], [8.0, 16.0]])}, [3]),
        },
        [3],
    )
    found = logged(store(steps([3, 2])), frames, torch.zeros(3, 2, 1), discount=0.5)
    assert found.reward.tolist() == [1 + 2 / 2, 4 / 4, 8 + 16 / 2]
