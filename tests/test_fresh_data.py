"""Data of age 0 have log-ratio 0: a policy acts and is learned from as the same function, moments included."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gipo.cli import main
from gipo.module import GIPOModule

Args = Callable[..., list[str]]
ITERATIONS, FRAMES = 5, 32

pytestmark = pytest.mark.usefixtures("no_plot")

PROCESSES = "two workers, out of phase"  # which take seconds to start
SETTINGS = {
    "in this process": {"data__collector__workers": 0},
    "a worker that waits": {},
    "warm-up in several segments": {"data__warmup_frames": 96, "data__capacity": 128},
    "critic alone at first": {"model__critic_warmup": 2},
    "Gaussian policy": {"model__policy": "gipo.policies.GaussianPolicy", "model__policy__bins": None},
    PROCESSES: {
        "data__task": "reach-v3", "data__collector__max_steps": 12, "data__collector__stagger": "true",
        "data__collector__workers": 2, "data__collector__num_envs": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] * (name == PROCESSES)) for name in SETTINGS]
)
def test_at_the_first_update_fresh_samples_are_on_policy(
    name: str, tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh: list[float] = []
    old: list[float] = []
    moments: list[torch.Tensor] = []
    learn = GIPOModule.training_step

    def watched(module: GIPOModule, batches, index: int) -> None:  # type: ignore[no-untyped-def]
        with torch.no_grad():
            batch = batches.flatten()
            params = module.policy.params(batch["observation"])
            x = (module.policy.log_prob(params, batch["latent"]) - batch["log_prob"]).abs()
        is_fresh = batch["policy_version"] == module.policy.version
        fresh.append(float(x[is_fresh].max()))
        old.extend(x[~is_fresh].flatten().tolist())
        assert module.policy.normaliser is not None
        moments.append(module.policy.normaliser.mean.clone())
        learn(module, batches, index)

    monkeypatch.setattr(GIPOModule, "training_step", watched)
    options = {"data__task": "Tiny-v0", "data__total_frames": ITERATIONS * FRAMES, "model__policy_lr": 3e-3}
    main(tiny(**options | {"data__collector__overlap": "false"} | SETTINGS[name]))
    assert len(fresh) == ITERATIONS
    assert max(fresh) < 1e-5
    assert max(old) > 1e-2  # so that it is the age that makes the difference
    # the moments do go on, and the first transition is already standardised
    assert moments[0].any()
    assert not torch.equal(moments[0], moments[-1])
