"""A critic that sees what its policy does not: values follow it, actions and their gradients cannot."""

from functools import partial

import pytest
import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.learning.critic import PrivilegedCritic
from gipo.learning.losses import Losses
from gipo.learning.policy_module import with_critic
from gipo.learning.value_scale import PopArt, SymlogTwoHot, ValueScale
from gipo.module import GIPOModule
from gipo.objectives import GIPO, k3
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy, build
from gipo.vla.policies import VLATokenPolicy
from gipo.vla.tiny import TinyVLANetworks
from tests.gipo.vla.builders import SPACES, observations
from tests.gipo.vla.test_policies import OfChunks, batch, learn

G, H = 5, 3


def seeing(privileged: int = G) -> Policy:
    torch.manual_seed(0)
    policy = VLATokenPolicy(SPACES, bins=6, network=lambda spaces, outputs: TinyVLANetworks(spaces, outputs, 16))
    if privileged:
        policy.see_privileged(privileged)
    return policy


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return 3 + 2 * torch.randn(*shape, G, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [ValueScale, PopArt, partial(SymlogTwoHot, 9)])
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_values_are_of_the_state_and_what_is_privileged_alone(scale: type[ValueScale], shape: tuple[int, ...]) -> None:
    policy, seen, other = seeing(), observations(*shape), observations(*shape, seed=1)
    policy.scale_values(scale(), learned=False)
    policy.learn_privileged(drawn(64))
    policy.learn_values(torch.arange(8.0), torch.ones(8, dtype=torch.bool))
    for parameter in policy.critic_parameters():
        torch.nn.init.normal_(parameter)
    value = policy.value(seen, drawn(*shape))
    assert value.shape == (*shape, H)
    assert torch.equal(policy.value({**other, "state": seen["state"]}, drawn(*shape)), value)
    assert not torch.allclose(policy.value(seen, drawn(*shape, seed=1)), value)
    assert not torch.allclose(policy.value({**seen, "state": other["state"]}, drawn(*shape)), value)


@pytest.mark.parametrize("kind", [TokenPolicy, GaussianPolicy])
def test_policies_of_vectors_have_such_a_critic_too(kind: type[Policy]) -> None:
    policy = kind(Spaces(3, (-1.0,), (1.0,)))
    policy.see_privileged(G)
    assert policy.value(torch.randn(7, 3), drawn(7)).shape == (7,)
    assert policy.description()["critic"] == {"privileged": G}


def test_it_standardises_what_is_privileged() -> None:
    critic = PrivilegedCritic(2, G, 1)
    state, numbers = torch.randn(6, 2), drawn(6)
    critic.normaliser.update(numbers)
    scaled = (numbers - numbers.mean(0)) / numbers.std(0, correction=0)
    expected = critic.layers(torch.cat([state, scaled], -1))
    torch.testing.assert_close(critic(torch.cat([state, numbers], -1)), expected)


def test_actions_do_not_depend_on_who_values_them() -> None:
    plain, asymmetric = seeing(0), seeing()
    asymmetric.learn_privileged(drawn(64))
    seen = observations(8)
    for critic in (None, drawn(8), drawn(8, seed=1)):
        given = seen if critic is None else {**seen, "privileged": critic}
        assert torch.equal(asymmetric.params(given), plain.params(seen))


def learned(privileged: Tensor | None, **options: int) -> GIPOModule:
    """One update from a batch whose advantages and value targets are the same whatever is privileged."""
    data = batch(seeing(0))
    if privileged is not None:
        data["privileged"] = privileged
    module = GIPOModule(
        policy=lambda _: seeing(0 if privileged is None else G), objective=GIPO(), normalise_advantages=False,
        policy_lr=0.1, value_lr=0.1, optimizer=lambda parameters: torch.optim.SGD(parameters), **options,
    )  # fmt: skip
    return learn(module, data)


@pytest.mark.parametrize("options", [{}, {"reuse": 2, "actor_every": 2}, {"micro_batch": 3}])
def test_the_policy_learns_alike_whatever_is_privileged(options: dict[str, int]) -> None:
    plain, one, other = (learned(told, **options).policy for told in (None, drawn(1, 8), drawn(1, 8, seed=1)))
    for without, here, there in zip(*(each.actor_parameters() for each in (plain, one, other)), strict=True):
        assert torch.equal(here, there)
        assert torch.equal(here, without), "the equations are the same"
    moved = [not torch.equal(a, b) for a, b in zip(one.critic_parameters(), other.critic_parameters(), strict=True)]
    assert any(moved)
    assert any(not torch.equal(a, b) for a, b in zip(one.actor_parameters(), seeing().actor_parameters(), strict=True))


def test_a_critic_alone_looks_at_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VLATokenPolicy, "encode", lambda *_: pytest.fail("it encoded an image"))
    before = seeing().critic_parameters()
    after = learned(drawn(1, 8), critic_warmup=1).policy.critic_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def hidden_values(told: Tensor) -> Tensor:
    """Values [B, H] of a target that no image shows, around 0."""
    return (told[:, :1] - 3) * torch.tensor([1.0, -0.5, 2.0]) + (told[:, 1:2] - 3)


def left_after_fitting(policy: Policy, count: int = 256) -> float:
    """Share of the variance of hidden values that its critic leaves, on other states than those it has learned from."""
    seen, fresh, told, unseen = observations(count), observations(count, seed=1), drawn(count), drawn(count, seed=1)
    losses, optimizer = Losses(GIPO(), k3, 0.0), torch.optim.Adam(policy.critic_parameters(), 3e-3)
    policy.learn_privileged(told)
    view = policy.critic_view(policy.standardised(seen), told).detach()
    for _ in range(80):
        _, loss = losses.value_terms(policy, view, hidden_values(told))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = policy.value(fresh, unseen) - hidden_values(unseen)
    return float(error.square().mean() / hidden_values(unseen).square().mean())


def test_it_fits_values_that_an_image_cannot_show() -> None:
    assert left_after_fitting(seeing()) < 0.1
    assert left_after_fitting(seeing(0)) > 0.9, "noise shows nothing"


def test_a_description_makes_it_again() -> None:
    policy = seeing()
    policy.scale_values(SymlogTwoHot(9), learned=False)
    policy.learn_privileged(drawn(64))
    again = build(policy.description())
    again.load_state_dict(policy.state_dict())
    assert again.description() == policy.description()
    assert torch.equal(again.value(observations(4), drawn(4)), policy.value(observations(4), drawn(4)))
    assert not again.wants_privileged


@pytest.mark.parametrize(("before", "sees"), [(0, "privileged"), (G, "observation")])
def test_a_learned_policy_can_be_given_the_other_critic(before: int, sees: str) -> None:
    policy = seeing(before)
    policy.scale_values(PopArt(), learned=False)
    policy.learn_values(torch.arange(8.0), torch.ones(8, dtype=torch.bool))
    with torch.no_grad():
        policy.network.actor.weight.normal_()
    policy.version.fill_(7)
    found = with_critic(policy, sees, G)  # type: ignore[arg-type]
    assert found.critic_sees == sees
    assert int(found.version) == 7
    assert torch.equal(found.params(observations(4)), policy.params(observations(4)))
    assert found.wants_privileged == (sees == "privileged")
    told = drawn(4) if sees == "privileged" else None
    assert not found.value(observations(4), told).any(), "it has learned nothing, and values begin at 0"


def test_the_critic_that_is_there_stays() -> None:
    for policy in (seeing(0), seeing()):
        assert with_critic(policy, policy.critic_sees, G) is policy


def test_what_the_data_do_not_hold_is_named() -> None:
    with pytest.raises(UserError, match=r"neither the task nor the logs hold it; use model\.critic=observation"):
        with_critic(seeing(0), "privileged", 0)
    with pytest.raises(UserError, match=r"sees 5 privileged numbers, and the data hold 2; use model\.critic=obs"):
        with_critic(seeing(), "privileged", 2)


def test_batches_of_a_module_of_ones_own_need_not_know_of_it() -> None:
    assert not hasattr(OfChunks, "privileged_size")
    assert learned(None).policy.critic_sees == "observation"
