"""Bad input: exit code 2 and one clear message that says what, where and how to mend it; no run folder touched."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gipo.cli import main
from tests.runs import cli_args, dead

Args = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("no_plot")


def refused(args: list[str], capsys: Capture) -> str:
    """The one line on stderr with which these arguments are refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(args)
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) == 1, error
    return error[error.index("error:") :]


SIZES = [
    "data.total_frames", "data.frames_per_iteration", "data.capacity", "data.rounds", "data.batch",
    "data.refresh_every", "data.collector.num_envs", "data.collector.worker_timeout", "data.evaluation.episodes",
    "data.evaluation.test_episodes", "data.evaluation.num_envs", "model.reuse", "model.actor_every",
    "model.policy_lr", "model.value_lr", "model.max_grad_norm", "checkpoint.every", "model.policy.bins",
]  # fmt: skip
NOT_NEGATIVE = [
    "data.warmup_frames", "data.collector.workers", "data.evaluation.seed", "seed_everything", "model.kl_coef",
    "model.entropy_coef", "model.value_coef", "model.lr_warmup", "model.lr_final",
]  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1])
def test_zero_and_negative_sizes(name: str, value: int, tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    error = refused(tiny(data__task="Tiny-v0", **{name: value}), capsys)
    assert name.rpartition(".")[2] in error
    assert str(value) in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", NOT_NEGATIVE)
def test_negative_values(name: str, tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    error = refused(tiny(data__task="Tiny-v0", **{name: -1}), capsys)
    assert name.rpartition(".")[2].removesuffix("_everything") in error
    assert not (tmp_path / "run").exists()


BAD_OPTIONS = {
    "unknown task": ({"data.task": "reach-v2"}, ["reach-v2", "reach-v3"]),
    "unknown task, far from any": ({"data.task": "fly to the moon"}, ["fly to the moon", "Nearest:"]),
    "task with discrete actions": ({"data.task": "CartPole-v1"}, ["CartPole-v1", "action", "Box"]),
    "unknown key": ({"data.frames_per_itaration": 10}, ["frames_per_itaration"]),
    "unknown group": ({"modle.reuse": 1}, ["modle"]),
    "word for a number": ({"data.rounds": "many"}, ["data.rounds", "many"]),
    "fraction of a frame": ({"data.batch": 1.5}, ["data.batch", "1.5"]),
    "a batch of one": ({"data.batch": 1}, ["model.normalise_advantages", "2 transitions", "raise data.batch"]),
    "not a number": ({"model.policy_lr": "nan"}, ["policy_lr", "nan"]),
    "infinite rate": ({"model.value_lr": "inf"}, ["value_lr", "inf"]),
    "zero sigma": ({"model.objective": "GIPO", "model.objective.sigma": 0}, ["sigma", "0"]),
    "negative sigma": ({"model.objective": "GIPO", "model.objective.sigma": -1}, ["sigma", "-1"]),
    "NaN sigma": ({"model.objective": "GIPO", "model.objective.sigma": "nan"}, ["sigma", "nan"]),
    "negative sigma ratio": ({"model.objective": "GIPO", "model.objective.sigma_neg_ratio": -1}, ["sigma_neg_ratio"]),
    "zero clip": ({"model.objective": "PPOClip", "model.objective.clip": 0}, ["clip", "0"]),
    "unknown objective": ({"model.objective": "PPPO"}, ["PPPO"]),
    "discount above one": ({"data.estimator": "GAE", "data.estimator.gamma": 1.01}, ["gamma", "1.01"]),
    "stored, and refreshed": (
        {"data.refresh_every": "5", "data.advantages": "stored"},
        ["data.refresh_every=5", "data.advantages=stored keeps them"],
    ),
    "stored V-trace": (
        {"data.estimator": "datamodules.advantages.VTrace", "data.advantages": "stored"},
        ["V-trace", "recompute"],
    ),
    "ESPO without what it needs": ({"model.objective": "gipo.baselines.ESPO"}, ["ESPO", "store_params"]),
    "ESPO without tokens": (
        {
            "model.objective": "gipo.baselines.ESPO",
            "data.store_params": "true",
            "model.policy": "GaussianPolicy",
            "model.policy.bins": None,
        },
        ["GaussianPolicy", "TokenPolicy"],
    ),
    "a floor of probabilities without tokens": (
        {
            "model.objective": "AgeAwareGIPO",
            "model.objective.probability_floor": 0.1,
            "model.policy": "GaussianPolicy",
            "model.policy.bins": None,
        },
        ["model.objective=AgeAwareGIPO needs the probability of a token", "TokenPolicy"],
    ),
    "exact KL without what it needs": ({"model.kl_exact": "true"}, ["kl_exact", "store_params"]),
    "simulators that do not divide": ({"data.collector.num_envs": 5}, ["frames_per_iteration", "5"]),
    "capacity below one iteration": ({"data.capacity": 31}, ["capacity=31", "32"]),
    "empty layers": ({"model.policy.network.hidden": "[]"}, ["layer"]),
    "zero-width layer": ({"model.policy.network.hidden": "[0]"}, ["layer", "0"]),
    "two tokens at least": ({"model.policy.bins": 1}, ["bins", "1"]),
    "no reward at all": ({"data.reward_scale": 0}, ["reward_scale", "positive", "got 0"]),
    "infinite reward scale": ({"data.reward_scale": "inf"}, ["reward_scale", "inf"]),
    "NaN reward scale": ({"data.reward_scale": "nan"}, ["reward_scale", "nan"]),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(name: str, tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    options, words = BAD_OPTIONS[name]
    error = refused(tiny(**{"data.task": "Tiny-v0"} | options), capsys)
    assert [word for word in words if word not in error] == []
    assert not (tmp_path / "run").exists()


def test_unknown_configuration_names_the_shipped_ones(tiny: Args, capsys: Capture) -> None:
    error = refused(["fit", "--config", "metaworld_frsh.yaml"], capsys)
    assert "metaworld_frsh.yaml" in error
    assert "metaworld_fresh.yaml" in error


def test_a_configuration_that_is_not_yaml(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("data: [unclosed")
    assert "broken.yaml" in refused(["fit", "--config", str(path)], capsys)


def test_an_occupied_folder(tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    error = refused(tiny(), capsys)
    assert "already holds a run" in error
    assert "--ckpt_path" in error
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["checkpoints", "last.ckpt"]


@pytest.mark.parametrize("half", ["checkpoints/.last.ckpt", "csv/version_0/.metrics.csv", ".curves.png"])
def test_a_folder_whose_run_was_killed_before_its_first_checkpoint_is_free(
    half: str, tiny: Args, tmp_path: Path
) -> None:
    stray = tmp_path / "run" / f"{half}.{dead()}.partial"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"half")
    main(tiny(data__task="Tiny-v0", data__total_frames=32))
    assert not stray.exists()


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluating_nothing(command: str, capsys: Capture) -> None:
    assert "--ckpt_path" in refused([command], capsys)


def test_a_task_without_a_time_limit_is_refused_wherever_it_is_evaluated(
    tiny: Args, tmp_path: Path, capsys: Capture
) -> None:
    line = "error: Endless-v0 has no time limit, so that an evaluation episode may never end; set data.evaluation.max_"
    endless: dict[str, object] = {"data__task": "Endless-v0", "data__total_frames": 32}
    assert refused(tiny(**endless), capsys).startswith(line)
    assert not (tmp_path / "run").exists()
    main(tiny(trainer__limit_val_batches=0, **endless))  # never evaluated, so that nothing is missing
    again = endless | {"ckpt_path": tmp_path / "run" / "checkpoints" / "last.ckpt", "checkpoint__every": None}
    for command in ("validate", "test"):
        assert refused(tiny(command=command, **again), capsys).startswith(line)
        main(tiny(command=command, data__evaluation__max_steps=5, data__evaluation__test_episodes=2, **again))
        assert "over 2 episodes" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["data.logs", "model.init_from", "data.ingest.cache", "trainer.default_root_dir"])
def test_an_empty_path_is_not_the_working_folder(option: str, tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    error = refused([*tiny(data__task="Tiny-v0"), f"--{option}="], capsys)
    assert error.startswith(f"error: {option} names nothing; give a ")
    assert not (tmp_path / "run").exists()


# In one process a new policy has looked around in the same simulators before, a worker has its own.
@pytest.mark.parametrize(("workers", "step"), [(0, "step 2 of episode"), (1, "step 6 of episode 0: ")])
@pytest.mark.parametrize("task", ["NaNReward-v0", "InfReward-v0"])
def test_a_reward_that_breaks_ends_the_run_and_keeps_the_last_checkpoint(
    task: str, workers: int, step: str, tiny: Args, tmp_path: Path, capsys: Capture
) -> None:
    options = {"data__frames_per_iteration": 8, "data__collector__num_envs": 2, "data__collector__workers": workers}
    error = refused(tiny(data__task=task, **options), capsys)
    assert f"non-finite next/reward at {step}" in error
    torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny run."""
    from tests.runs import cli_args

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)
        main(cli_args(folder, data__total_frames=32))
    return folder / "checkpoints" / "last.ckpt"


def damaged(trained: Path, to: Path, kind: str) -> Path:
    """A copy of a good checkpoint, damaged in this way."""
    content = trained.read_bytes()
    if kind == "truncated":
        to.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        to.write_bytes(b"")
    elif kind == "flipped":
        middle = len(content) // 2
        to.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif kind == "text":
        to.write_text("not a checkpoint")
    elif kind == "pickle that runs code":
        torch.save({"gipo": {"format": 1}, "state_dict": Path}, to)
    elif kind == "someone else's":
        torch.save({"state_dict": {"layer.weight": torch.zeros(2)}}, to)
    elif kind == "a list":
        torch.save([1, 2, 3], to)
    else:
        checkpoint = torch.load(trained, weights_only=True)
        if kind == "another format":
            checkpoint["gipo"]["format"] = 99
        elif kind == "nameless class":
            checkpoint["gipo"]["policy"]["class_path"] = "os.system"
        elif kind == "policy without description":
            del checkpoint["gipo"]["policy"]
        elif kind == "weights missing":
            del checkpoint["state_dict"]
        elif kind == "data missing":
            del checkpoint["OnlineDataModule"]
        elif kind == "NaN weights":
            checkpoint["state_dict"]["policy.network.actor.0.weight"][0] = torch.nan
        torch.save(checkpoint, to)
    return to


DAMAGES = {
    "truncated": "truncated, damaged or not a checkpoint",
    "empty": "truncated, damaged or not a checkpoint",
    "text": "truncated, damaged or not a checkpoint",
    "pickle that runs code": "truncated, damaged or not a checkpoint",
    "someone else's": "is not a gipo checkpoint",
    "a list": "is not a gipo checkpoint",
    "another format": "checkpoint format 99",
    "nameless class": "is not a Policy",
    "flipped": "truncated, damaged or not a checkpoint",
    "policy without description": "no 'policy'",
    "weights missing": "no 'state_dict'",
    "data missing": "no training state",
    "NaN weights": "not finite",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_bad_checkpoints(kind: str, trained: Path, tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    path = damaged(trained, tmp_path / "bad.ckpt", kind)
    error = refused(tiny(ckpt_path=path, data__total_frames=64), capsys)
    assert DAMAGES[kind] in error
    assert not (tmp_path / "run").exists()


def test_a_missing_checkpoint(tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    assert "no checkpoint at" in refused(tiny(ckpt_path=tmp_path / "nowhere.ckpt"), capsys)
    assert not (tmp_path / "run").exists()


OTHER = {
    "another architecture": ({"model.policy.network.hidden": "[32]"}, "another policy"),
    "another number of tokens": ({"model.policy.bins": 16}, "bins"),
    "another family": (
        {"model.policy": "gipo.policies.GaussianPolicy", "model.policy.bins": None},
        "another policy",
    ),
    "another task with the same sizes": ({"data.task": "push-v3"}, "'reach-v3', data.task is 'push-v3'"),
    "another task with other sizes": ({"data.task": "Tiny-v0"}, "another policy"),
    "another kind of frames": ({"data.store_params": "true"}, "store_params=false"),
}


@pytest.mark.parametrize("name", OTHER)
def test_checkpoints_of_other_runs(name: str, trained: Path, tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    options, words = OTHER[name]
    assert words in refused(tiny(ckpt_path=trained, data__total_frames=64, **options), capsys)
    assert not (tmp_path / "run").exists()


CHANGED = {
    "fewer frames": (
        {"data__total_frames": 32},
        "the end of iteration 2, and this run ends with iteration 1; raise",
    ),
    "longer iterations": (
        {"data__frames_per_iteration": 64},
        "iterations are of 32 frames, data.frames_per_iteration=64; resume with --data.frames_per_iteration=32, or",
    ),
    "shorter iterations": (
        {"data__frames_per_iteration": 16},
        "iterations are of 32 frames, data.frames_per_iteration=16; resume with --data.frames_per_iteration=32, or",
    ),
    "another sampler": (
        {"data__sampler": "torchrl.data.StalenessAwareSampler"},
        "was drawn from by another data.sampler; resume with that one",
    ),
    "another optimizer": (
        {"model__optimizer": "torch.optim.SGD", "data__total_frames": 96},
        "is of another optimizer than model.optimizer, SGD: it has no dampening, momentum; resume with",
    ),
    "another value scale": (
        {"model__value_scale": "PopArt"},
        "critic has value_scale=ValueScale with {}, and model.value_scale asks for PopArt",
    ),
    "another part of the network": (
        {"model__frozen": "[actor.0]", "data__total_frames": 96},
        "is of a run with model.frozen=[], this one has ['actor.0']; resume with the same, or start a new run",
    ),
    "less capacity": ({"data__capacity": 32}, "replay holds 64 transitions, data.capacity is 32; raise it"),
    "another task": ({"data__task": "Brief-v0"}, "was trained on 'Tiny-v0', data.task is 'Brief-v0'"),
}


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of two iterations."""
    folder = tmp_path_factory.mktemp("short") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)
        main(cli_args(folder, data__task="Tiny-v0", data__total_frames=64))
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("change", CHANGED)
def test_resuming_with_what_does_not_fit_the_checkpoint(
    change: str, short_run: Path, tiny: Args, tmp_path: Path, capsys: Capture
) -> None:
    options, words = CHANGED[change]
    given: dict[str, object] = {"data__task": "Tiny-v0", "data__total_frames": 64, "ckpt_path": short_run}
    before = short_run.read_bytes()
    error = refused(tiny(name="other", **given | options), capsys)
    assert error.startswith("error: the checkpoint")
    assert words in error
    assert short_run.read_bytes() == before
    assert not list((tmp_path / "other").rglob("config.yaml")), "of a run that never began"


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_of_another_task_is_told_by_its_task(command: str, short_run: Path, capsys: Capture) -> None:
    """Not by the sizes of its policy, which is what a user who forgot --config would hear of."""
    error = refused([command, f"--ckpt_path={short_run}", "--data.task=Pendulum-v1"], capsys)
    assert error.startswith(
        "error: the checkpoint was trained on 'Tiny-v0', data.task is 'Pendulum-v1'; give the run's"
    )
