"""Models of who acted: latents from actions, likelihoods against hand numbers and a known policy."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from datamodules.replay.behaviour import BehaviourOptions, chance_level, complete, fit
from gipo.common.errors import UserError
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy

D = 2
SPACES = Spaces(3, (-1.0, 0.0), (1.0, 4.0))
KINDS: dict[type[Policy], dict[str, Any]] = {TokenPolicy: {"bins": 5}, GaussianPolicy: {}}
BOTH = pytest.mark.parametrize("kind", KINDS)


def make(kind: type[Policy], seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    policy = kind(SPACES, network=lambda i, o: SeparateNetworks(i, o, hidden=(32,)), **KINDS[kind])
    with torch.no_grad():
        policy.network.actor[-1].weight *= 100.0  # type: ignore[index,operator]
    return policy


def frames_of(actor: Policy, episodes: int = 20, steps: int = 50, logged: bool = False) -> TensorDict:
    """What `actor` did; what a log of ours would hold beside it where `logged`."""
    generator = torch.Generator().manual_seed(1)
    count = episodes * steps
    observation = torch.randn(count, 3, generator=generator)
    with torch.no_grad():
        params = actor.params(observation)
        latent = actor.sample(params, actor.noise((count,), generator))
        log_prob = actor.log_prob(params, latent)
    found = {
        "observation": observation,
        "action": actor.to_env(latent),
        "valid": torch.ones(count, dtype=torch.bool),
        "episode": torch.arange(count) // steps,
        "true_log_prob": log_prob,
    }
    return TensorDict(found | ({"latent": latent, "log_prob": log_prob} if logged else {}), batch_size=[count])


def stored(frames: TensorDict) -> Any:
    return SimpleNamespace(frames=frames)


@BOTH
def test_a_model_of_a_known_policy_gives_its_log_probs(kind: type[Policy], capsys: pytest.CaptureFixture[str]) -> None:
    actor = make(kind)
    frames = frames_of(actor, episodes=60)
    found = complete(stored(frames), make(kind, seed=1), BehaviourOptions(epochs=20, lr=3e-3, batch=128), True, 0)
    error = (found["log_prob"] - frames["true_log_prob"]).abs().mean()
    assert float(error) < 0.25  # nats
    words = capsys.readouterr().err.rpartition("\r")[2]  # behind the bar
    assert words.startswith("gipo: behaviour model: ")
    held_out, others, chance = (float(part.split()[0]) for part in words.split("model: ")[1].split(", "))
    # The truth is the best there is; a model of it comes near, and knows more than the blind one.
    truth = float(frames["true_log_prob"].mean())
    assert chance + 0.1 < held_out < others + 0.05
    assert held_out == pytest.approx(truth, abs=0.1)


def test_the_chance_level_of_tokens_by_hand() -> None:
    model = TokenPolicy(Spaces(1, (0.0,), (1.0,)), bins=3)
    train, test = torch.tensor([[0], [0], [1]]), torch.tensor([[0], [2]])
    # counts 2, 1, 0 and one more each, of six
    assert chance_level(model, train, test) == pytest.approx((math.log(3 / 6) + math.log(1 / 6)) / 2)


def test_the_chance_level_of_gaussians_by_hand() -> None:
    model = GaussianPolicy(Spaces(1, (0.0, 0.0), (1.0, 1.0)), std_min=0.1, std_max=1.0)
    # mean 1 and variance ½²; a dimension that never moves has the least scale a model can have
    train, test = torch.tensor([[0.5, 3.0], [1.5, 3.0]]), torch.tensor([[2.0, 3.0]])
    expected = [-0.5 * 2**2 - math.log(0.5), -math.log(0.1)]
    assert chance_level(model, train, test) == pytest.approx(sum(expected) / 2 - 0.5 * math.log(2 * math.pi))


def test_a_dimension_that_never_moves_is_no_reason_to_refuse() -> None:
    actor = make(GaussianPolicy)
    frames = frames_of(actor)
    frames["action"][:, 1] = 2.0
    options = BehaviourOptions(epochs=20, lr=3e-3, batch=128)
    assert torch.isfinite(complete(stored(frames), make(GaussianPolicy, 1), options, True, 0)["log_prob"]).all()


@BOTH
def test_actions_at_random_are_no_behaviour(kind: type[Policy]) -> None:
    frames = frames_of(make(kind), episodes=4, steps=30)
    low, high = torch.tensor([[-1.0, 0.0], [1.0, 4.0]])
    frames["action"] = low + (high - low) * torch.rand(len(frames), D, generator=torch.Generator().manual_seed(2))
    for epochs, fix in ((60, "fewer epochs, as it explains those that it was fitted to"), (1, "more epochs")):
        with pytest.raises(UserError, match=f"no better than chance .*; give data.behaviour {fix}, or the data is"):
            complete(stored(frames), make(kind), BehaviourOptions(epochs=epochs, lr=1e-2, batch=32), True, 0)


def test_a_model_that_blew_up_is_refused() -> None:
    """Whose likelihood is no number, and so no less than chance."""
    frames = frames_of(make(GaussianPolicy), episodes=4, steps=30)
    with pytest.raises(UserError, match=r"no better than chance \(nan against .*; give data.behaviour a lower lr,"):
        complete(stored(frames), make(GaussianPolicy), BehaviourOptions(epochs=3, lr=1e30, batch=32), True, 0)


def test_the_fit_depends_on_its_seed_alone_and_leaves_the_generators_alone() -> None:
    frames = frames_of(make(TokenPolicy))
    frames["latent"] = make(TokenPolicy).from_env(frames["action"])
    policy = make(TokenPolicy)  # which seeds torch's generator, as the fits must not
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, *_ = fit(frames, policy, BehaviourOptions(epochs=1), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, *_ = fit(frames, policy, BehaviourOptions(epochs=1), seed=3)
    other, *_ = fit(frames, policy, BehaviourOptions(epochs=1), seed=4)
    weights = [model.network.actor[0].weight for model in (first, again, other)]  # type: ignore[index]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_model_has_the_floor_of_the_policy() -> None:
    policy = TokenPolicy(SPACES, observation_floor=1e-6)
    model, *_ = fit(frames_of(make(TokenPolicy), 2, logged=True), policy, BehaviourOptions(epochs=1), seed=3)
    assert model.normaliser is not None
    assert float(model.normaliser.floor) == 1e-6


def test_held_out_episodes_are_not_learned_from() -> None:
    frames = frames_of(make(TokenPolicy), episodes=10)
    frames["latent"] = make(TokenPolicy).from_env(frames["action"])
    options = BehaviourOptions(epochs=1, holdout=0.3)
    model, *_ = fit(frames, make(TokenPolicy), options, seed=3)
    assert model.normaliser is not None
    assert int(model.normaliser.count) == 7 * 50
    frames["valid"][frames["episode"] < 9] = False
    with pytest.raises(UserError, match="at least two episodes"):
        fit(frames, make(TokenPolicy), options, seed=3)


@BOTH
def test_logged_latents_and_log_probs_are_taken_as_they_are(kind: type[Policy]) -> None:
    frames = frames_of(make(kind), logged=True)
    found = complete(stored(frames), make(kind, seed=1), None, True, 0)
    assert torch.equal(found["latent"], frames["latent"])
    assert torch.equal(found["log_prob"], frames["log_prob"])


def test_latents_of_another_policy_are_refused_where_ratios_are_needed_and_made_anew_elsewhere() -> None:
    frames = frames_of(make(TokenPolicy), logged=True)
    others: list[Policy] = [make(GaussianPolicy), TokenPolicy(SPACES, bins=9)]
    for other in others:
        with pytest.raises(UserError, match=f"another kind of policy than the {type(other).__name__}"):
            complete(stored(frames), other, BehaviourOptions(), True, 0)
        found = complete(stored(frames), other, None, False, 0)
        assert found["latent"].dtype == other.latent_dtype
        width = torch.tensor([2.0, 4.0])
        assert bool(((other.to_env(found["latent"]) - frames["action"]).abs() <= 1e-3 * width).all())
        assert not found["log_prob"].any()
    assert frames["latent"].dtype == torch.int64  # what is stored stays as it is


@pytest.mark.parametrize("spaces", [SPACES, Spaces(3, (-1e-4, 0.0), (1e-4, 2e-4))], ids=["wide", "narrow"])
def test_latents_of_as_good_as_as_many_bins_are_of_another_policy(spaces: Spaces) -> None:
    with pytest.raises(UserError, match="another kind of policy than the TokenPolicy"):
        complete(
            stored(frames_of(TokenPolicy(spaces, bins=33), logged=True)), TokenPolicy(spaces, bins=32), None, True, 0
        )


def test_a_latent_that_a_person_overruled_need_not_fit() -> None:
    frames = frames_of(make(TokenPolicy), logged=True)
    frames["action"][3] = torch.tensor([0.9, 0.1])
    with pytest.raises(UserError, match="another kind of policy"):
        complete(stored(frames), make(TokenPolicy), None, True, 0)
    frames["valid"][3] = False
    complete(stored(frames), make(TokenPolicy), None, True, 0)


def test_a_persons_logs_alone_have_no_behaviour_policy() -> None:
    frames = frames_of(make(TokenPolicy))
    frames["valid"] = torch.zeros(len(frames), dtype=torch.bool)
    for options in (None, BehaviourOptions()):
        with pytest.raises(
            UserError, match=r"no policy decided in any step of the logs, .*; clone who did with --model"
        ):
            complete(stored(frames), make(TokenPolicy), options, needs_behaviour=True, seed=0)


def test_without_log_probs_there_must_be_a_model() -> None:
    with pytest.raises(UserError, match=r"no behaviour log-probs.*data\.behaviour\.epochs.*BehaviourCloning"):
        complete(stored(frames_of(make(TokenPolicy))), make(TokenPolicy), None, True, 0)


@pytest.mark.parametrize("kind", [TokenPolicy, GaussianPolicy])
@pytest.mark.parametrize("sampled", [False, True])
def test_latents_of_what_nobody_sampled_are_the_learners_own(kind: type[Policy], sampled: bool) -> None:
    actor, learner = make(kind), make(kind, seed=1)
    frames = frames_of(actor, logged=True)
    person = torch.zeros(len(frames), dtype=torch.bool)
    person[: len(frames) if not sampled else 100] = True
    frames["valid"] = ~person
    frames["action"][person] = torch.tensor([0.9, -0.9])[: frames["action"].shape[-1]]
    frames["latent"][person] = 0  # of a policy of another kind, which looked on
    found = complete(stored(frames), learner, None, True, 0)
    assert torch.equal(found["latent"][person], learner.from_env(frames["action"][person]))
    assert torch.equal(found["latent"][~person], frames["latent"][~person])
    assert not frames["latent"][person].any(), "the store is as it was"
