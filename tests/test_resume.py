"""A run that was stopped and resumed ends bit for bit where the run that never stopped ends."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gipo.cli import main
from tests.crash import crash
from tests.fingerprint import fingerprints

Args = Callable[..., list[str]]
ITERATIONS, CRASH, FRAMES = 6, 5, 32

pytestmark = pytest.mark.usefixtures("no_plot")


def run(args: list[str], folder: Path) -> dict[str, str]:
    main(args)
    return fingerprints(folder / "checkpoints" / "last.ckpt")


def replay(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["OnlineDataModule"]["replay"]["frames"]


def interrupted_equals_whole(tiny: Args, tmp_path: Path, **options: object) -> None:
    """What a run is saved as where it fails is what a run that saved there goes on from: a save ends all episodes."""
    options = {"data__total_frames": ITERATIONS * FRAMES, "checkpoint__every": CRASH} | options
    whole = run(tiny("whole", **options), tmp_path / "whole")
    crash(tiny("again", **options | {"checkpoint__every": 100}), CRASH)
    last = tmp_path / "again" / "checkpoints" / "last.ckpt"
    assert fingerprints(last) != whole
    assert run(tiny("again", ckpt_path=last, **options), tmp_path / "again") == whole


SETTINGS = {
    "token policy, recomputed advantages": {},
    "validation between": {"trainer__check_val_every_n_epoch": 3},
    "stored advantages, two-hot values": {
        "data__advantages": "stored", "data__store_params": "true", "model__kl_exact": "true",
        "model__value_scale": "SymlogTwoHot",
    },
    "staleness-aware sampling": {"data__sampler": "torchrl.data.replay_buffers.StalenessAwareSampler"},
    "V-trace, refreshed now and then, PopArt": {
        "data__estimator": "datamodules.advantages.VTrace", "data__refresh_every": 2, "model__value_scale": "PopArt",
    },
    "Gaussian policy, value-only reuse": {
        "model__policy": "gipo.policies.GaussianPolicy",
        "model__policy__bins": None,
        "model__policy__state_free_std": "true",
        "model__reuse": 3,
        "model__actor_every": 2,
    },
    "warm-up frames, cosine decay, adaptive anchor": {
        "data__warmup_frames": 64, "model__lr_warmup": 2, "model__lr_final": 0.0, "model__max_grad_norm": 0.01,
        "model__kl_target": 1e-4,
    },
    "authors' network, no normaliser": {
        "model__policy__network": "gipo.networks.SharedEncoder",
        "model__policy__network__hidden": None,
        "model__policy__network__width": 16,
        "model__policy__normalise": "false",
    },
    "another task, finished episodes": {"data__task": "Tiny-v0"},
    "critic alone": {"data__task": "Tiny-v0", "model__critic_warmup": 5},
    "episodes out of phase, an objective that remembers": {
        "data__task": "Tiny-v0", "data__collector__stagger": "true", "model__objective": "AgeAwareGIPO",
    },
    "replay where the learner is": {"data__task": "Tiny-v0", "data__replay_device": "learner"},
}  # fmt: skip


QUICK = ("token policy, recomputed advantages", "V-trace, refreshed now and then, PopArt",
         "warm-up frames, cosine decay, adaptive anchor", "Gaussian policy, value-only reuse",
         "episodes out of phase, an objective that remembers")  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] * (name not in QUICK)) for name in SETTINGS]
)
def test_a_crashed_run_resumes_bit_for_bit(name: str, tiny: Args, tmp_path: Path) -> None:
    interrupted_equals_whole(tiny, tmp_path, **SETTINGS[name])


def test_training_two_iterations_and_resuming_to_four_equals_training_four(tiny: Args, tmp_path: Path) -> None:
    whole = run(tiny("whole", data__total_frames=4 * FRAMES), tmp_path / "whole")
    run(tiny("grown", data__total_frames=2 * FRAMES), tmp_path / "grown")
    last = tmp_path / "grown" / "checkpoints" / "last.ckpt"
    assert run(tiny("grown", data__total_frames=4 * FRAMES, ckpt_path=last), tmp_path / "grown") == whole


def test_the_best_checkpoint_resumes_too(tiny: Args, tmp_path: Path) -> None:
    options = {"data__total_frames": ITERATIONS * FRAMES, "trainer__check_val_every_n_epoch": 4}
    options |= {"checkpoint__every": 100}
    whole = run(tiny("whole", **options), tmp_path / "whole")
    best = tmp_path / "whole" / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["OnlineDataModule"]["iteration"] == 4
    again = run(tiny("again", ckpt_path=best, **options), tmp_path / "again")
    assert {name for name in whole if again[name] != whole[name]} == set()


@pytest.mark.parametrize(("keep", "name"), [("false", "last-1.ckpt"), ("true", "version-3.ckpt")])
def test_what_was_learned_later_is_kept_by_a_run_that_goes_on_from_its_best(
    keep: str, name: str, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"data__total_frames": 3 * FRAMES, "trainer__check_val_every_n_epoch": 2, "checkpoint__keep": keep}
    main(tiny("run", **options))
    folder = tmp_path / "run" / "checkpoints"
    later, curves = (folder / "last.ckpt").read_bytes(), tmp_path / "run" / "curves.csv"
    learned = curves.read_text()
    changed = {"model__policy_lr": 1e-2, "checkpoint__keep": "false"}
    main(tiny("run", **options | changed | {"ckpt_path": folder / "best.ckpt"}))
    told = f"last.ckpt holds policy version 3, and this run goes on from 2; it is kept as {name}"
    assert told in (said := capsys.readouterr().err)
    assert f"note: {curves} had rows that this run has not; it is kept as curves-1.csv" in said
    assert curves.with_stem("curves-1").read_text() == learned != curves.read_text()
    assert (folder / name).read_bytes() == later != (folder / "last.ckpt").read_bytes()
    names = {path.name for path in folder.iterdir()}
    main(tiny("run", **options | changed | {"ckpt_path": folder / "last.ckpt", "data__total_frames": 4 * FRAMES}))
    assert {path.name for path in folder.iterdir()} == names
    assert "is kept as" not in capsys.readouterr().err
    assert not curves.with_stem("curves-2").exists(), "what goes on from its end has all of its rows"


def test_validation_does_not_touch_training(tiny: Args, tmp_path: Path) -> None:
    # Only the validated run keeps a best checkpoint, which is an episode boundary: save every iteration in both.
    without = run(tiny("without"), tmp_path / "without")
    with_validation = run(tiny("with", trainer__check_val_every_n_epoch=1), tmp_path / "with")
    assert without.pop("curves") != with_validation.pop("curves")
    assert without.pop("gipo") != with_validation.pop("gipo")  # it has the configuration's hash
    assert without == with_validation


def test_a_replay_beside_a_learner_on_the_cpu_is_the_same(tiny: Args, tmp_path: Path) -> None:
    options = {"data__task": "Tiny-v0"}
    apart = run(tiny("apart", **options), tmp_path / "apart")
    beside = run(tiny("beside", data__replay_device="learner", **options), tmp_path / "beside")
    assert apart.pop("gipo") != beside.pop("gipo")  # it has the configuration's hash
    assert apart == beside


def test_another_seed_is_another_run(tiny: Args, tmp_path: Path) -> None:
    one = run(tiny("one"), tmp_path / "one")
    two = run(tiny("two", seed_everything=8), tmp_path / "two")
    assert {name for name in one if one[name] == two[name]} == {
        "epoch", "global_step", "lr_schedulers", "data/task", "data/simulator", "data/workers", "data/frames",
        "data/iteration", "data/frames_per_iteration", "data/next_episode", "data/episodes", "data/logs",
    }  # fmt: skip


def test_a_run_too_large_to_copy_keeps_its_last_save(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"data__task": "Tiny-v0", "data__total_frames": ITERATIONS * FRAMES, "checkpoint__every": 3}
    crash(tiny(**options | {"checkpoint__copy_gib": 1e-6}), CRASH)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"] == 3
    error = capsys.readouterr().err
    assert f"the run failed in iteration 6; {last} holds iteration 3; what iterations 4 to 5 learned is lost" in error


def test_curves_hold_every_iteration_once_after_a_crash(tiny: Args, tmp_path: Path) -> None:
    options = {"data__total_frames": ITERATIONS * FRAMES, "checkpoint__every": 2}
    crash(tiny("run", **options), CRASH)
    main(tiny("run", ckpt_path=tmp_path / "run" / "checkpoints" / "last.ckpt", **options))
    with open(tmp_path / "run" / "curves.csv") as file:
        frames = [float(row["frames"]) for row in csv.DictReader(file)]
    assert frames == [FRAMES * (n + 1) for n in range(ITERATIONS)]


def test_curves_hold_evaluation_figures_only_where_the_policy_was_evaluated(tiny: Args, tmp_path: Path) -> None:
    main(tiny("run", trainer__check_val_every_n_epoch=2, data__task="Tiny-v0"))
    with open(tmp_path / "run" / "curves.csv") as file:
        evaluated = [int(float(row["frames"])) for row in csv.DictReader(file) if row["val/return"]]
    assert evaluated == [2 * FRAMES, 4 * FRAMES]


def test_a_larger_buffer_keeps_the_frames_of_the_checkpoint(tiny: Args, tmp_path: Path) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    options = {"data__task": "Tiny-v0", "data__capacity": 80}
    run(tiny("run", **options), tmp_path / "run")
    before = replay(last)
    run(
        tiny("run", **options | {"data__capacity": 200, "data__total_frames": 160, "ckpt_path": last}), tmp_path / "run"
    )
    after = replay(last)
    assert len(before["episode"]) == 80
    assert len(after["episode"]) == 80 + FRAMES
    oldest_first = before["observation"].roll(-(128 % 80), 0)
    assert torch.equal(after["observation"][:80], oldest_first)


def test_a_smaller_buffer_is_refused_before_the_folder_is_touched(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    run(tiny("run", data__task="Tiny-v0"), tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(tiny("run", data__task="Tiny-v0", data__capacity=64, ckpt_path=last))
    assert ended.value.code == 2
    assert "replay holds 96 transitions, data.capacity is 64" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == config


def test_the_kept_configuration_starts_a_new_run_not_the_resumed_one(tiny: Args, tmp_path: Path) -> None:
    run(tiny("run", data__task="Tiny-v0", data__total_frames=64), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    run(tiny("run", data__task="Tiny-v0", ckpt_path=last), tmp_path / "run")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()).get("ckpt_path") is None


def test_a_finished_run_resumed_changes_nothing(tiny: Args, tmp_path: Path) -> None:
    done = run(tiny("run"), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert run(tiny("run", ckpt_path=last), tmp_path / "run") == done
    assert (tmp_path / "run" / "curves.csv").read_text().count("\n") == 5


def test_the_best_of_the_last_iteration_is_remembered(tiny: Args, tmp_path: Path) -> None:
    """With an evaluation in every iteration, the one that is saved is among those that the best is best of."""
    main(tiny(trainer__check_val_every_n_epoch=1, data__total_frames=64, data__task="Tiny-v0"))
    folder = tmp_path / "run"
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = [state for name, state in saved.items() if name.startswith("BestCheckpoint")]
    with open(folder / "curves.csv") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["val/return"]) for row in rows] == [True, True]
    assert float(best["current_score"]) == pytest.approx(float(rows[-1]["val/return"]))
    assert float(best["best_model_score"]) == pytest.approx(max(float(row["val/return"]) for row in rows))


def test_an_optimizer_goes_on_with_the_options_of_the_new_run(tiny: Args, tmp_path: Path) -> None:
    main(tiny(data__total_frames=64))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    options = {"model__optimizer__weight_decay": 0.5, "model__optimizer__betas": "[0.5,0.6]", "model__value_lr": 0.125}
    main(tiny(ckpt_path=last, data__total_frames=96, model__optimizer="torch.optim.AdamW", **options))
    for state in torch.load(last, weights_only=True)["optimizer_states"]:
        (group,) = state["param_groups"]
        assert (group["weight_decay"], tuple(group["betas"])) == (0.5, (0.5, 0.6))
    assert group["initial_lr"] == 0.125


class Counting(torch.optim.SGD):
    """Keeps a number of its own beside its options, as optimizers do that need no schedule."""

    def __init__(self, params: Any, lr: float = 1e-3, decay: float = 0.0):
        super().__init__(params, lr)
        self.param_groups[0] |= {"k": 0, "decay": decay}

    def step(self, closure: Any = None) -> Any:
        self.param_groups[0]["k"] += 1
        return super().step(closure)


def test_what_an_optimizer_counts_goes_on(tiny: Args, tmp_path: Path) -> None:
    own = {"model__optimizer": "tests.test_resume.Counting"}
    main(tiny(**own, data__total_frames=64, model__optimizer__decay=0.5))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    main(tiny(**own, ckpt_path=last, data__total_frames=128, model__optimizer__decay=0.25))
    groups = [state["param_groups"][0] for state in torch.load(last, weights_only=True)["optimizer_states"]]
    assert [(group["k"], group["decay"]) for group in groups] == [(8, 0.25), (8, 0.25)]  # 4 iterations of 2 rounds


def test_an_option_that_needs_what_no_step_has_kept_is_refused(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tiny(data__total_frames=64, model__optimizer="torch.optim.Adam"))
    resumed = {"ckpt_path": tmp_path / "run" / "checkpoints" / "last.ckpt", "data__total_frames": 96}
    with pytest.raises(SystemExit):
        main(tiny("other", **resumed, model__optimizer="torch.optim.Adam", model__optimizer__amsgrad="true"))
    assert "kept nothing that model.optimizer.amsgrad=True could go on from" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_sampler_goes_on_with_the_options_of_the_new_run(tiny: Args, tmp_path: Path) -> None:
    aware = {"data__sampler": "torchrl.data.replay_buffers.StalenessAwareSampler"}
    main(tiny(**aware, data__total_frames=96, data__sampler__max_staleness=5))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    main(tiny(**aware, ckpt_path=last, data__total_frames=128, data__sampler__max_staleness=1))
    saved = torch.load(last, weights_only=True)["OnlineDataModule"]["replay"]["buffer"]["_sampler"]
    assert (int(saved["max_staleness"]), int(saved["consumer_version"])) == (1, 3)


def test_stored_advantages_are_of_one_scale(tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = {"data__advantages": "stored", "data__total_frames": 64}
    main(tiny(**stored))
    resumed = {"ckpt_path": tmp_path / "run" / "checkpoints" / "last.ckpt", **stored | {"data__total_frames": 96}}
    for changed in ({"data__reward_scale": 10}, {"data__estimator": "GAE", "data__estimator__lam": 0.5}):
        with pytest.raises(SystemExit):
            main(tiny("other", **resumed, **changed))
        said = capsys.readouterr().err
        assert "with data.advantages=stored those of the checkpoint stay, which were computed by" in said
        assert "resume with the data.estimator and data.reward_scale of the run" in said
    main(tiny("other", **resumed | {"data__advantages": "recompute"}, data__reward_scale=10))


def test_workers_that_go_on_must_share_an_iteration_evenly(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tiny(data__total_frames=32, data__collector__workers=2, data__collector__num_envs=4))
    resumed = {"ckpt_path": tmp_path / "run" / "checkpoints" / "last.ckpt", "data__total_frames": 64}
    with pytest.raises(SystemExit):
        main(tiny("other", **resumed, data__collector__workers="null", data__collector__num_envs=32))
    assert "data.frames_per_iteration=32 must be a multiple of the 64 simulators" in capsys.readouterr().err
