"""Values and ratios of a store, in chunks as in one piece."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from datamodules.advantages import GAE, Estimate, Estimator, Trajectories, VTrace
from datamodules.replay.observation_moments import learn_moments
from datamodules.replay.values import log_ratios, value_frames
from gipo.networks import SeparateNetworks
from gipo.policies import Policy, Spaces, TokenPolicy

D, BINS = 2, 6
SPACES = Spaces(3, (-1.0,) * D, (1.0,) * D)


def make_policy(normalise: bool = False) -> Policy:
    torch.manual_seed(0)
    return TokenPolicy(SPACES, BINS, lambda i, o: SeparateNetworks(i, o, hidden=(16,)), normalise)


def frames(episodes: int = 9, steps: int = 7) -> TensorDict:
    generator = torch.Generator().manual_seed(1)
    count = episodes * steps
    done = torch.arange(count) % steps == steps - 1
    terminated = done & (torch.arange(count) // steps % 2 == 0)
    found = TensorDict(
        {
            "observation": torch.randn(count, 3, generator=generator),
            "latent": torch.randint(BINS, (count, D), generator=generator),
            "log_prob": -torch.rand(count, D, generator=generator),
            "valid": torch.rand(count, generator=generator) > 0.2,
            "episode": torch.arange(count) // steps,
            "step": torch.arange(count) % steps,
            "next": {
                "observation": torch.randn(count, 3, generator=generator),
                "reward": torch.randn(count, generator=generator),
                "terminated": terminated,
                "truncated": done & ~terminated,
                "done": done,
            },
        },
        batch_size=[count],
    )
    return found[torch.randperm(count, generator=generator)].contiguous()


@pytest.mark.parametrize("estimator", [GAE(0.9, 0.8), VTrace(0.9)])
@pytest.mark.parametrize("chunk", [1, 10])
def test_chunks_equal_one_piece(estimator: Estimator, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, policy = frames(), make_policy()
    chronological = data["step"].argsort(stable=True)
    order, whole = value_frames(data, policy, estimator, 0.5, chronological)
    ratios = log_ratios(policy, data)
    monkeypatch.setattr(policy.network, "rows_at_once", chunk)
    again, parts = value_frames(data, policy, estimator, 0.5, chronological)
    assert torch.equal(order, again)
    for mine, theirs in zip(whole, parts, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert torch.allclose(ratios, log_ratios(policy, data), atol=1e-6)


def test_ratios_by_definition() -> None:
    data, policy = frames(), make_policy()
    with torch.no_grad():
        log_pi = policy.params(data["observation"]).log_softmax(-1)
    expected = torch.stack([log_pi[n, d, data["latent"][n, d]] for n in range(len(data)) for d in range(D)])
    assert torch.allclose(log_ratios(policy, data), expected.view(-1, D) - data["log_prob"], atol=1e-6)


class Overhearing(Estimator):
    """It keeps the trajectories that it is told."""

    def __init__(self) -> None:
        self.told: list[Trajectories] = []

    def __call__(self, frames: Trajectories) -> Estimate:
        self.told.append(frames)
        return Estimate(frames.reward, frames.value)


def test_what_an_estimator_is_told_of_steps() -> None:
    data, policy, estimator = frames(), make_policy(), Overhearing()
    order, _ = value_frames(data, policy, estimator, 2.0, data["step"].argsort(stable=True))
    (found,), rows = estimator.told, data[order]
    value, after = (policy.value(seen).detach() for seen in (rows["observation"], rows["next", "observation"]))
    ended, cut, inside = (rows["next", "terminated"], rows["next", "truncated"], ~rows["next", "done"])
    assert torch.equal(found.reward, 2 * rows["next", "reward"])
    assert torch.equal(found.terminated, ended)
    assert torch.equal(found.linked, inside)
    torch.testing.assert_close(found.value, value)
    assert not found.next_value[ended].any()
    torch.testing.assert_close(found.next_value[cut], after[cut])
    torch.testing.assert_close(found.next_value[inside], value.roll(-1)[inside])
    # of a whole action, and 1 where the policy did not choose it
    ratio = log_ratios(policy, rows).sum(-1)
    torch.testing.assert_close(found.log_ratio, torch.where(rows["valid"], ratio, 0.0))


def test_moments_of_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    observation, rows = frames()["observation"], torch.tensor([5, 1, 8, 13, 2])
    policy = make_policy(normalise=True)
    monkeypatch.setattr(policy.network, "rows_at_once", 4)
    learn_moments(policy, observation, rows)
    learn_moments(policy, observation)  # it has moments now
    assert policy.normaliser is not None
    assert int(policy.normaliser.count) == 5
    assert torch.allclose(policy.normaliser.mean, observation[rows].double().mean(0))
    learn_moments(make_policy(normalise=False), observation)


class Table:
    """A critic by the book: the values [M, H] of a decision are those that its observation holds."""

    network = SimpleNamespace(rows_at_once=3)
    privileged_size = 0

    def __init__(self) -> None:
        self.version = torch.zeros((), dtype=torch.int64)

    def features(self, observation: torch.Tensor) -> torch.Tensor:
        return observation

    value = value_of = features


def test_advantages_run_along_the_executed_steps_of_chunks() -> None:
    # One episode of two decisions of three steps, cut after one step of the second by termination; and one decision
    # that a time limit cut after two steps.
    data = TensorDict(
        {
            "observation": torch.tensor([[1.0, 2.0, 3.0], [4.0, 50.0, 50.0], [5.0, 6.0, 50.0]]),
            "executed": torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool(),
            "episode": torch.tensor([0, 0, 1]),
            "step": torch.tensor([0, 1, 0]),
            "next": {
                "observation": torch.tensor([[50.0] * 3, [50.0] * 3, [7.0, 50.0, 50.0]]),
                "reward": torch.tensor([[1.0, 1.0, 1.0], [2.0, 99.0, 99.0], [3.0, 3.0, 99.0]]),
                "terminated": torch.tensor([False, True, False]),
                "truncated": torch.tensor([False, False, True]),
                "done": torch.tensor([False, True, True]),
            },
        },
        batch_size=[3],
    )
    order, estimate = value_frames(data, Table(), GAE(gamma=1.0, lam=1.0), 1.0)  # type: ignore[arg-type]
    assert order.tolist() == [0, 1, 2]
    # undiscounted returns: 1 + 1 + 1 + 2, and 3 + 3 + V = 7
    assert estimate.target.tolist() == [[5, 4, 3], [2, 0, 0], [13, 10, 0]]
    assert estimate.advantage.tolist() == [[4, 2, 0], [-2, 0, 0], [8, 4, 0]]
    _, single = value_frames(data, Table(), GAE(gamma=0.5, lam=0.0), 1.0)  # type: ignore[arg-type]
    # r + γ·V(next step) − V: 1 + .5·2 − 1, 1 + .5·3 − 2, 1 + .5·4 − 3, 2 − 4, 3 + .5·6 − 5, 3 + .5·7 − 6
    assert single.advantage.tolist() == [[1, 0.5, 0], [-2, 0, 0], [1, 0.5, 0]]


def test_only_the_last_step_of_a_decision_terminates() -> None:
    data = TensorDict(
        {
            "observation": torch.tensor([[5.0, 6.0, 50.0]]),
            "executed": torch.tensor([[True, True, False]]),
            "episode": torch.tensor([0]),
            "step": torch.tensor([0]),
            "next": {
                "observation": torch.tensor([[50.0] * 3]),
                "reward": torch.tensor([[1.0, 2.0, 99.0]]),
                "terminated": torch.tensor([True]),
                "truncated": torch.tensor([False]),
                "done": torch.tensor([True]),
            },
        },
        batch_size=[1],
    )
    _, estimate = value_frames(data, Table(), GAE(gamma=1.0, lam=1.0), 1.0)  # type: ignore[arg-type]
    assert estimate.target.tolist() == [[1 + 2, 2, 0]]
    assert estimate.advantage.tolist() == [[3 - 5, 2 - 6, 0]]


class AllKnowing(Table):
    """A critic that sees what its policy does not: values are what it observes and what is privileged, added."""

    privileged_size = 1

    def value(self, observation: torch.Tensor, privileged: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return (observation + privileged).squeeze(-1)


def test_a_critic_that_sees_more_values_by_what_is_privileged() -> None:
    data = TensorDict(
        {
            "observation": torch.tensor([[1.0], [2.0]]),
            "privileged": torch.tensor([[10.0], [20.0]]),
            "episode": torch.tensor([0, 1]),
            "step": torch.tensor([0, 0]),
            "next": {
                "observation": torch.tensor([[3.0], [4.0]]),
                "privileged": torch.tensor([[30.0], [40.0]]),
                "reward": torch.tensor([0.0, 0.0]),
                "terminated": torch.tensor([True, False]),
                "truncated": torch.tensor([False, True]),
                "done": torch.tensor([True, True]),
            },
        },
        batch_size=[2],
    )
    _, estimate = value_frames(data, AllKnowing(), GAE(gamma=0.5, lam=0.0), 1.0)  # type: ignore[arg-type]
    assert estimate.target.tolist() == [0, 22]
    assert estimate.advantage.tolist() == [-11, 0]
