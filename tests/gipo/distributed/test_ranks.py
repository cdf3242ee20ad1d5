"""Two learners on halves of every batch learn what one learns on the whole of it."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from tensordict import TensorDict
from torch import Tensor
from torch import distributed as dist

from gipo.adaptive import AdaptiveGIPO
from gipo.common.errors import UserError
from gipo.distributed import ranks, sharding
from gipo.distributed.sharding import WholePolicy, is_sharded
from gipo.distributed.strategies import Replicated, Sharded
from gipo.learning.value_scale import PopArt
from gipo.module import GIPOModule
from gipo.networks import SharedEncoder
from gipo.policies import Policy, Spaces, TokenPolicy
from tests.ranks import on_ranks

SIZE, D, BINS, BATCH, ITERATIONS = 5, 3, 6, 16, 3
SPACES = Spaces(SIZE, (-1.0,) * D, (1.0,) * D)
STRATEGIES = {"ddp": Replicated, "fsdp": Sharded}


def policy_of(spaces: Spaces) -> Policy:
    torch.manual_seed(0)
    return TokenPolicy(spaces, BINS, lambda i, o: SharedEncoder(i, o, 12, 8), normalise=False)


def iteration(seed: int) -> TensorDict:
    """[2, B], whose first half has many more usable elements than the second, and one that is not finite."""
    generator, shape = torch.Generator().manual_seed(seed), (2, BATCH)
    valid = torch.rand(shape, generator=generator) > 0.1
    valid[:, BATCH // 2 :] &= torch.rand(shape[0], BATCH // 2, generator=generator) > 0.7
    log_prob = -2 + 0.3 * torch.randn(*shape, D, generator=generator)
    log_prob[0, 1, 2] = -torch.inf
    return TensorDict(
        {
            "observation": torch.randn(*shape, SIZE, generator=generator),
            "latent": torch.randint(BINS, (*shape, D), generator=generator),
            "log_prob": log_prob,
            "policy_version": torch.randint(-12, 1, shape, generator=generator),
            "valid": valid,
            "advantage": 3 + 2 * torch.randn(shape, generator=generator),
            "value_target": torch.randn(shape, generator=generator),
        },
        batch_size=shape,
    )


class Parts(LightningDataModule):
    """Serves each learner its half of every batch, the first to the first; where it is alone, all of it."""

    spaces = SPACES

    def train_dataloader(self) -> "Parts":
        return self

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[TensorDict]:
        yield iteration(self.trainer.current_epoch).chunk(ranks.count(), dim=1)[ranks.rank()]


class Metrics(Callback):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def learn(strategy: str | None, options: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Weights and metrics after a few iterations."""
    module, kept = GIPOModule(policy=policy_of, **options), Metrics()
    many = {} if strategy is None else {"strategy": STRATEGIES[strategy](), "devices": 2}
    trainer = Trainer(
        accelerator="cpu", max_epochs=ITERATIONS, logger=False, enable_checkpointing=False, callbacks=[kept],
        enable_progress_bar=False, enable_model_summary=False, **many,
    )  # fmt: skip
    trainer.fit(module, datamodule=Parts())
    assert is_sharded(module.policy) == (strategy == "fsdp")
    weights = {name: value.clone() for name, value in WholePolicy()(module.policy).state_dict().items()}
    return weights, kept.rows


def test_a_whole_copy_standardises_by_what_is_learned_after_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advantages are computed with the copy, after moments were added to the policy itself."""
    monkeypatch.setattr(sharding, "is_sharded", lambda policy: True)
    policy = TokenPolicy(SPACES, BINS)
    policy.see_privileged(2)
    copy = WholePolicy()(policy)
    assert copy is not policy
    observation, privileged = torch.randn(64, SIZE), 5 + 3 * torch.randn(64, 2)
    policy.learn_privileged(privileged)
    policy.learn_moments(observation)
    policy.take_moments()
    assert torch.equal(copy.value(observation, privileged), policy.value(observation, privileged))


RECIPES = {
    "ours": {"policy_lr": 1e-3, "value_lr": 2e-3, "max_grad_norm": 0.5, "kl_target": 0.01},
    "value-only reuse, entropy, warm-up, PopArt": {
        "reuse": 3, "actor_every": 2, "entropy_coef": 0.01, "critic_warmup": 1, "max_grad_norm": 0.05,
        "value_scale": PopArt,
    },
    "raw advantages": {"normalise_advantages": False},
}  # fmt: skip


QUICK = (("ddp", "ours"), ("fsdp", "value-only reuse, entropy, warm-up, PopArt"))


@pytest.mark.parametrize(
    ("strategy", "recipe"),
    [
        pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.campaign)
        for pair in itertools.product(STRATEGIES, RECIPES)
    ],
)
def test_two_learners_of_half_a_batch_are_one_of_the_whole(strategy: str, recipe: str) -> None:
    options = RECIPES[recipe]
    expected, metrics = learn(None, options)
    before = policy_of(SPACES).state_dict()
    for weights, rows in on_ranks(learn, strategy, options):
        assert weights.keys() == expected.keys()
        for name, value in weights.items():
            assert torch.allclose(value, expected[name], rtol=0, atol=1e-6), name
            assert name == "version" or "action" in name or not torch.equal(value, before.get(name, 0 * value)), name
        for row, whole in zip(rows, metrics, strict=True):
            assert row.keys() == whole.keys()
            for name, value in row.items():
                assert value == pytest.approx(whole[name], rel=1e-4, abs=1e-5), name


def not_finite_on_one() -> tuple[dict[str, Tensor], int]:
    """A value target that is not a number, on the second rank alone."""

    class Broken(Parts):
        def __iter__(self) -> Iterator[TensorDict]:
            (batch,) = super().__iter__()
            if ranks.rank() == 1 and self.trainer.current_epoch == 1:
                batch = batch.clone()
                batch["value_target"][0, 0] = math.nan
            yield batch

    module = GIPOModule(policy=policy_of)
    trainer = Trainer(
        accelerator="cpu", max_epochs=ITERATIONS, logger=False, enable_checkpointing=False, devices=2,
        enable_progress_bar=False, enable_model_summary=False, strategy=Replicated(),
    )  # fmt: skip
    trainer.fit(module, datamodule=Broken())
    return {name: value.clone() for name, value in module.policy.state_dict().items()}, int(module.skipped)


def test_all_ranks_skip_an_update_that_is_not_finite_on_one() -> None:
    (first, skipped), (second, also_skipped) = on_ranks(not_finite_on_one)
    assert skipped == also_skipped == 1
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert value.isfinite().all()


def padded(x: Tensor) -> tuple[Tensor, Tensor]:
    """x as two rows [2, 6] that are not used to their ends, and what is used of them."""
    rows = torch.full((2, 6), math.nan)
    rows[:, : len(x)] = x
    return rows, torch.arange(6).expand(2, 6) < len(x)


def pooled() -> dict[str, Any]:
    """What every rank makes of the same numbers, dealt out unevenly."""
    dist.init_process_group("gloo")
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]) + 1e4
    mine = x[:4] if ranks.rank() == 0 else x[4:]
    return {
        "count": ranks.count(),
        "joined": ranks.joined(mine),
        "std": ranks.mean_and_std(*padded(mine)),
        "of one rank": ranks.mean_and_std(*padded(mine[ranks.rank() * 9 :])),
        "averaged": ranks.averaged(mine.sum()),
        "weighed": ranks.averaged(ranks.weighed(mine.mean(), torch.ones_like(mine, dtype=torch.bool))),
        "nothing": ranks.weighed(torch.zeros(()), torch.zeros(2, dtype=torch.bool)),
        "gathered": ranks.gathered({"rank": ranks.rank()}),
        "others": ranks.others(ranks.rank()),
        "first": ranks.of_the_first(ranks.rank()),
    }


def test_statistics_are_of_the_elements_of_all_ranks() -> None:
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]) + 1e4
    first, second = on_ranks(pooled)
    for found in (first, second):
        assert found["count"] == 2
        assert torch.equal(found["joined"], x)
        for row in torch.stack(found["std"], -1).tolist():
            assert row == pytest.approx([10006.2, math.sqrt(37.2)], rel=1e-6)
        for row in torch.stack(found["of one rank"], -1).tolist():  # the other has nothing that is used
            assert row == pytest.approx([10003.75, math.sqrt(28.75 / 3)], rel=1e-6)
        assert float(found["averaged"]) == pytest.approx(float(x.sum()) / 2)
        assert float(found["weighed"]) == pytest.approx(float(x.mean()))
        assert float(found["nothing"]) == 0
        assert found["first"] == 0
    assert (first["gathered"], second["gathered"]) == ([{"rank": 0}, {"rank": 1}], [{"rank": 1}])
    assert (first["others"], second["others"]) == ([1], [0])


def test_alone_everything_is_what_it_was() -> None:
    x = torch.randn(7)
    assert (ranks.count(), ranks.rank()) == (1, 0)
    assert ranks.joined(x) is x
    assert ranks.averaged(x) is x
    assert ranks.weighed(x, x > 0) is x
    mean, std = ranks.mean_and_std(*padded(x[:5]))
    assert torch.allclose(mean, x[:5].mean().expand(2), atol=1e-6)
    assert torch.allclose(std, x[:5].std().expand(2), atol=1e-6)
    assert ranks.others(1) == []
    mean, std = ranks.mean_and_std(*padded(x[:1]))  # one element
    assert torch.equal(mean, x[:1].expand(2))
    assert std.tolist() == [0, 0]
    assert ranks.mean_and_std(*padded(x[:0]))[0].isnan().all()


def refused() -> str:
    module = GIPOModule(policy=policy_of, objective=AdaptiveGIPO())
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, devices=2,
        enable_progress_bar=False, enable_model_summary=False, strategy=Replicated(),
    )  # fmt: skip
    try:
        trainer.fit(module, datamodule=Parts())
    except UserError as error:
        return str(error)
    return "no error"


def test_an_objective_that_weighs_a_batch_as_a_whole_is_refused() -> None:
    for message in on_ranks(refused):
        assert "AdaptiveGIPO weighs a batch as a whole, which 2 learners share" in message


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:534] Read error", True),
        ("Connection closed by peer [127.0.0.1]:1", True),
        ("Connection reset by peer", True),
        ("Socket closed", True),
        ("Timed out waiting 1000ms for recv operation to complete", True),
        ("the read operation timed out", True),
        ("Broken pipe", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_lost_learner_is_told_from_an_error_of_the_run_by_what_is_said(
    said: str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (1, 2):
        monkeypatch.setattr(ranks, "count", lambda count=count: count)
        assert ranks.is_loss_of_a_rank(RuntimeError(said)) == (lost and count > 1)
        assert not ranks.is_loss_of_a_rank(OSError(said)), "of a file, of a robot"
        assert ranks.is_loss_of_a_rank(dist.DistBackendError(said))


def test_the_others_of_three_are_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three learners, in this process."""
    monkeypatch.setattr(ranks, "count", lambda: 3)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    monkeypatch.setattr(dist, "all_gather_object", lambda found, own: found.__setitem__(slice(None), ["a", own, "c"]))
    assert ranks.others("b") == ["a", "c"]
    monkeypatch.setattr(ranks, "_every", lambda x: torch.stack([torch.tensor(6), x, torch.tensor(1)]))
    # 3 of 10 elements, by an average over 3
    assert float(ranks.weighed(torch.tensor(5.0), torch.ones(3, dtype=torch.bool))) == pytest.approx(5 * 3 * 3 / 10)
    sent: list[Tensor] = []

    def every(x: Tensor) -> Tensor:
        """The first learner has 2 rows, this one 3 and the last 1, each made as long as the longest."""
        sent.append(x)
        return torch.tensor([2, 3, 1]) if len(sent) == 1 else torch.stack([0 * x + 7, x, 0 * x + 9])

    monkeypatch.setattr(ranks, "_every", every)
    found = ranks.joined(torch.arange(6.0).reshape(3, 2))
    assert [each.tolist() for each in sent] == [3, [[0, 1], [2, 3], [4, 5]]]
    assert found.tolist() == [[7, 7]] * 2 + [[0, 1], [2, 3], [4, 5]] + [[9, 9]]
