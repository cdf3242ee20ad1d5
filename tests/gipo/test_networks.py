"""Network bodies and the observation normaliser."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gipo.common.errors import UserError
from gipo.networks import ActorCritic, Head, ObservationNormaliser, SeparateNetworks, SharedEncoder

torch.set_num_threads(1)

OBSERVATION, OUTPUTS = 5, 12

NETWORKS = [
    lambda: SeparateNetworks(OBSERVATION, OUTPUTS, hidden=(16, 8)),
    lambda: SharedEncoder(OBSERVATION, OUTPUTS, width=16, critic_width=8),
]
every_network = pytest.mark.parametrize("make", NETWORKS, ids=["separate", "shared"])


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@every_network
def test_heads_have_their_sizes(make) -> None:  # type: ignore[no-untyped-def]
    network = make()
    features = network.encoder(torch.randn(7, 3, OBSERVATION))
    assert network.actor(features).shape == (7, 3, OUTPUTS)
    assert network.critic(features).shape == (7, 3, 1)


@every_network
def test_config_rebuilds_the_network(make) -> None:  # type: ignore[no-untyped-def]
    network = make()
    again = type(network)(OBSERVATION, OUTPUTS, **network.config())
    again.load_state_dict(network.state_dict())
    x = torch.randn(4, OBSERVATION)
    assert torch.equal(again.actor(again.encoder(x)), network.actor(network.encoder(x)))


@every_network
def test_heads_are_in_float32_where_products_before_them_are_not(make) -> None:  # type: ignore[no-untyped-def]
    network, x = make(), torch.randn(64, OBSERVATION)
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.functional.linear(x, x).dtype == torch.bfloat16
        for part in (network.actor, network.critic):
            hidden = part[:-1](network.encoder(x))
            found = part[-1](hidden)
            assert found.dtype == torch.float32
            weight, bias = part[-1].weight, part[-1].bias
            with torch.autocast("cpu", enabled=False):
                assert torch.equal(found, nn.functional.linear(hidden.float(), weight, bias))
    with torch.no_grad():
        part = network.actor
        assert torch.equal(part[-1](part[:-1](network.encoder(x))), part(network.encoder(x)))


def test_authors_network_is_built_as_published() -> None:
    # 39-d state → Linear 512, ReLU, LayerNorm; policy head Linear 512, ReLU, LayerNorm, Linear 4×256; value head 256
    network = SharedEncoder(39, 4 * 256)
    assert parameter_count(network.encoder) == (39 * 512 + 512) + 2 * 512
    assert parameter_count(network.actor) == (512 * 512 + 512) + 2 * 512 + (512 * 1024 + 1024)
    assert parameter_count(network.critic) == (512 * 256 + 256) + 2 * 256 + (256 + 1)
    assert [type(layer) for layer in network.encoder] == [nn.Linear, nn.ReLU, nn.LayerNorm]
    assert [type(layer) for layer in network.actor] == [nn.Linear, nn.ReLU, nn.LayerNorm, Head]
    assert [type(layer) for layer in network.critic] == [nn.Linear, nn.ReLU, nn.LayerNorm, Head]


def test_default_actor_starts_near_zero() -> None:
    network = SeparateNetworks(OBSERVATION, OUTPUTS)
    assert network.actor(torch.randn(64, OBSERVATION)).abs().max() < 0.2
    assert network.critic(torch.randn(64, OBSERVATION)).abs().max() > 0.2


@pytest.mark.parametrize(("norm", "count"), [("first", 1), ("all", 3), ("none", 0)])
@pytest.mark.parametrize(("activation", "kind"), [("tanh", nn.Tanh), ("relu", nn.ReLU), ("silu", nn.SiLU)])
def test_layers_are_what_is_asked_for(norm: Any, count: int, activation: Any, kind: type[nn.Module]) -> None:
    network = SeparateNetworks(OBSERVATION, OUTPUTS, hidden=(8, 8, 8), norm=norm, activation=activation)
    for part in (network.actor, network.critic):
        assert sum(isinstance(layer, nn.LayerNorm) for layer in part) == count
        assert sum(type(layer) is kind for layer in part) == 3
    again = SeparateNetworks(OBSERVATION, OUTPUTS, **network.config())
    assert str(again) == str(network)


def test_the_last_actor_layer_starts_with_the_gain_it_is_given() -> None:
    for gain in (0.0, 0.5):
        last = SeparateNetworks(OBSERVATION, 4, actor_gain=gain).actor[-1]
        # orthogonal rows times the gain
        torch.testing.assert_close(last.weight @ last.weight.T, gain**2 * torch.eye(4))


@pytest.mark.parametrize(
    "bad", [{"norm": "last"}, {"activation": "gelu"}, {"actor_gain": -1.0}, {"actor_gain": math.inf}]
)
def test_impossible_layers_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        SeparateNetworks(OBSERVATION, OUTPUTS, **bad)


@pytest.mark.parametrize("hidden", [(), (0,), (16, -1)])
def test_impossible_widths_are_refused(hidden: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="widths"):
        SeparateNetworks(OBSERVATION, OUTPUTS, hidden=hidden)


@pytest.mark.parametrize("field", ["width", "critic_width"])
def test_impossible_shared_widths_are_refused(field: str) -> None:
    with pytest.raises(UserError, match="widths"):
        SharedEncoder(OBSERVATION, OUTPUTS, **{field: 0})


def test_network_without_config_says_so() -> None:
    with pytest.raises(NotImplementedError, match="ActorCritic"):
        ActorCritic().config()


# ObservationNormaliser


def normaliser_of(chunks: list[np.ndarray], **options: float) -> ObservationNormaliser:
    normaliser = ObservationNormaliser(chunks[0].shape[-1], **options)
    for chunk in chunks:
        normaliser.update(torch.from_numpy(chunk))
    return normaliser


@pytest.mark.parametrize("sizes", [[64], [1, 1, 1], [5, 50, 500], [1000, 1]])
def test_moments_equal_those_of_all_chunks_together(sizes: list[int]) -> None:
    generator = np.random.default_rng(0)
    spread, offset = np.array([1.0, 1e-3, 100.0]), np.array([0.0, 5.0, -1e4])
    chunks = [(generator.normal(size=(size, 3)) * spread + offset).astype(np.float32) for size in sizes]
    everything = np.concatenate(chunks).astype(np.float64)

    normaliser = normaliser_of(chunks, floor=0.0)

    assert normaliser.count.item() == len(everything)
    np.testing.assert_allclose(normaliser.mean.numpy(), everything.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(normaliser.scale().numpy(), everything.std(0), rtol=1e-9)


def test_any_leading_shape_counts_and_empty_chunks_do_not() -> None:
    x = torch.randn(4, 5, 3)
    flat, shaped = ObservationNormaliser(3), ObservationNormaliser(3)
    flat.update(x.reshape(-1, 3))
    shaped.update(x)
    shaped.update(x[:0])
    torch.testing.assert_close(shaped.state_dict(), flat.state_dict(), atol=0, rtol=0)


def test_standardised_observations_have_mean_zero_and_deviation_one() -> None:
    x = np.random.default_rng(1).normal(3.0, 4.0, (5000, 2)).astype(np.float32)
    y = normaliser_of([x])(torch.from_numpy(x))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)


def test_before_any_update_observations_pass() -> None:
    x = torch.tensor([[0.5, -2.0]])
    assert torch.equal(ObservationNormaliser(2)(x), x)


def test_constant_features_pass_as_difference_from_their_mean() -> None:
    normaliser = normaliser_of([np.full((10, 1), 7.0, np.float32)])
    assert normaliser(torch.tensor([[7.0], [7.5]])).tolist() == [[0.0], [0.5]]


def test_what_hardly_moves_is_divided_by_the_floor() -> None:
    # deviations .001 and 1: the first is divided by .01, or by itself where there is no floor
    x = np.array([[0.999, -1.0], [1.001, 1.0]], np.float32)
    y = torch.tensor([[1.002, 2.0]])
    assert normaliser_of([x])(y).tolist() == [[pytest.approx(0.2, abs=1e-3), 2.0]]
    assert normaliser_of([x], floor=0.5)(y).tolist() == [[pytest.approx(0.004, abs=1e-5), 2.0]]
    assert normaliser_of([x], floor=0.0)(y).tolist() == [[pytest.approx(2.0, abs=1e-2), 2.0]]


@pytest.mark.parametrize("floor", [-0.1, math.inf, math.nan])
def test_impossible_floors_are_refused(floor: float) -> None:
    with pytest.raises(UserError, match="observation_floor"):
        ObservationNormaliser(1, floor=floor)


def test_weights_from_before_there_was_a_floor_go_on_without_one() -> None:
    x = np.array([[0.999], [1.001]], np.float32)
    old = normaliser_of([x], floor=0.0).state_dict()
    del old["floor"]
    loaded = ObservationNormaliser(1)
    loaded.load_state_dict(old)
    assert loaded(torch.tensor([[1.002]])).item() == pytest.approx(2.0, abs=1e-2)
    assert "floor" in loaded.state_dict()


def test_moments_learned_for_later_change_nothing_until_they_are_taken() -> None:
    first, second = torch.randn(8, 2), 3 + torch.randn(8, 2)
    normaliser = ObservationNormaliser(2)
    normaliser.update(first)
    before = normaliser(second)
    normaliser.update_later(second)
    assert torch.equal(normaliser(second), before)
    normaliser.take()
    together = ObservationNormaliser(2)
    together.update(first)
    together.update(second)
    torch.testing.assert_close(normaliser.state_dict(), together.state_dict(), atol=0, rtol=0)
    normaliser.take()
    assert normaliser.count == 16


def test_outliers_are_clamped() -> None:
    normaliser = normaliser_of([np.array([[-1.0], [1.0]], np.float32)])
    assert normaliser(torch.tensor([[1e9], [-1e9], [3.0]])).tolist() == [[10.0], [-10.0], [3.0]]


def test_long_runs_lose_no_precision() -> None:
    # at this offset x² − x̄² has no digits left in float32
    normaliser = ObservationNormaliser(1)
    for _ in range(3000):
        normaliser.update(torch.tensor([[9999.5], [10000.5]]))
    assert normaliser.mean.item() == pytest.approx(10_000, rel=1e-12)
    assert normaliser.scale().item() == pytest.approx(0.5, rel=1e-9)


def test_what_keeps_little_is_not_recomputed() -> None:
    with pytest.raises(UserError, match=r"model\.recompute=true is for pretrained networks; SeparateNetworks keeps"):
        SeparateNetworks(3, 2, hidden=(8,)).recompute()
