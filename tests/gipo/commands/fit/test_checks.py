"""Where the logs of a run are held against its policy."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import Namespace

from gipo.commands.fit import checks
from gipo.module import GIPOModule
from gipo.objectives import GIPO, k1
from gipo.policies import Policy, Spaces, TokenPolicy


@pytest.mark.parametrize(("large", "where"), [(True, "meta"), (False, "cpu")])
def test_a_large_network_is_asked_of_logs_where_it_learns(
    large: bool, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = TokenPolicy(Spaces(3, (-1.0,), (1.0,)))
    monkeypatch.setattr(type(policy.network), "large", large)
    asked: list[str] = []

    def log_ratios(policy: Policy, *_: Any) -> None:
        asked.append(policy.version.device.type)
        raise InterruptedError

    monkeypatch.setattr(checks, "log_ratios", log_ratios)
    model: Any = SimpleNamespace(policy=policy, objective=GIPO(), kl_coef=0.0, interface={"a": "b"})
    frames = {"valid": torch.ones(1, dtype=torch.bool), "source": torch.zeros(1)}
    logs = SimpleNamespace(refuse_unlike=lambda *_: None, frames=lambda *_: frames, seen=None, modelled=False)
    data = SimpleNamespace(logs=logs, reads_behaviour=lambda _: True, interface=None)
    with pytest.raises(InterruptedError):
        checks.report_staleness(model, data, tmp_path, True, torch.device("meta"))
    assert asked == [where]


@pytest.mark.parametrize(("coef", "logs", "told"), [(0.0, None, False), (2.0, "logs", False), (2.0, None, True)])
def test_persons_to_imitate_are_missed_where_there_are_no_logs(coef: float, logs: str | None, told: bool) -> None:
    notes = checks.notes_on_learning(GIPOModule(human_coef=coef), SimpleNamespace(logs=logs), 10, resumed=False)
    assert notes == ["model.human_coef=2 is for what persons did in logs, and there are no logs"] * told


NO_EFFECT = {
    "every reuse": ({"reuse": 3, "actor_every": 2, "kl_exact": True}, []),
    "the last iteration is the first at the full rate": ({"lr_warmup": 10}, []),
    "a warm-up beyond the end": (
        {"lr_warmup": 40},
        ["end at 25% of what was given: model.lr_warmup=40 iterations, and"],
    ),
    "one reuse": ({"actor_every": 4}, ["model.actor_every=4 has no effect with model.reuse=1"]),
    "an estimator of what is not estimated": (
        {"kl_exact": True, "kl_estimator": k1},
        ["model.kl_estimator is not read"],
    ),
}


@pytest.mark.parametrize(("options", "told"), NO_EFFECT.values(), ids=NO_EFFECT)
def test_options_without_effect_are_told(options: dict[str, Any], told: list[str]) -> None:
    notes = checks.notes_on_learning(GIPOModule(**options), SimpleNamespace(logs=None), 10, resumed=False)
    assert len(notes) == len(told)
    assert all(said in note for said, note in zip(told, notes, strict=True))


def test_what_needs_less_memory_is_named_of_the_options_that_a_run_has() -> None:
    collects = Namespace(data=Namespace(capacity=None, collector=Namespace(num_envs=16), batch=64))
    parts = "model.micro_batch (a batch is added up in parts)"
    assert checks.less_memory(collects).endswith(f"a smaller {parts} or data.capacity or data.collector.num_envs")
    learns = Namespace(data=Namespace(class_path="OfflineDataModule", init_args=Namespace(batch=64, logs=["a"])))
    assert checks.less_memory(learns).endswith(f"a smaller {parts}")


def test_logs_beside_a_simulator_are_held_against_it_and_against_the_policy_they_start_from() -> None:
    """A batch has rows of both, which the policy could not tell apart."""
    held: list[dict[str, str]] = []
    logs = SimpleNamespace(
        refuse_unlike=lambda _, said: held.append(said), modelled=False, frames=lambda *_: {"valid": torch.ones(1)}
    )
    model: Any = SimpleNamespace(policy=SimpleNamespace(spaces=None), interface={"of": "the checkpoint"})
    data = SimpleNamespace(logs=logs, interface={"of": "the simulator"}, reads_behaviour=lambda _: True)
    with pytest.raises(KeyError, match="source"):  # what comes after is not asked here
        checks.learnable(model, data)
    assert held == [{"of": "the checkpoint"}, {"of": "the simulator"}]
