"""The loop that the online data module is the outline of, and where it keeps its buffer."""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

import datamodules.online
from datamodules.advantages import GAE
from datamodules.base import PolicyDataModule
from datamodules.ingest import IngestOptions
from datamodules.online import STATE, OnlineDataModule
from datamodules.options import CollectorOptions, EvaluationOptions
from datamodules.replay.behaviour import BehaviourOptions
from datamodules.replay.ring import Replay
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.policies import Policy
from tests.datamodules.test_offline import attach
from tests.offline import make_policy

LINE = re.compile(r"^(?: {4})?(\w+) +([\w.]+) +([\w/]+)\.py +\S.*$", re.M)  # step, its function, its file
OUTLINE = LINE.findall(str(datamodules.online.__doc__))


def code_of(name: str, file: str) -> CodeType:
    """The code that runs under this name, which the file itself must define."""
    function = inspect.unwrap(attrgetter(name)(importlib.import_module(file.replace("/", "."))))
    assert Path(function.__code__.co_filename).match(f"{file}.py")
    return function.__code__


@pytest.mark.usefixtures("no_plot")
def test_an_iteration_goes_as_the_outline_says(tiny: Callable[..., list[str]]) -> None:
    steps = {code_of(name, file): step for step, name, file in OUTLINE}
    taken: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in steps:
            taken.append(steps[frame.f_code])

    sys.setprofile(watch)
    try:
        main(
            tiny(
                data__task="Tiny-v0",
                data__total_frames=32,
                trainer__check_val_every_n_epoch=1,
                data__collector__workers=0,
            )
        )
    finally:
        sys.setprofile(None)
    iteration = taken[taken.index("weights") :]  # before it a new policy has looked around
    assert list(dict.fromkeys(iteration)) == [step for step, _, _ in OUTLINE]
    assert len(OUTLINE) == 12


def test_the_page_on_the_architecture_has_the_same_outline() -> None:
    page = Path(__file__).parents[2] / "docs" / "architecture.md"
    assert LINE.findall(page.read_text(encoding="utf-8")) == OUTLINE


def module(replay_device: str, root: str) -> OnlineDataModule:
    found = OnlineDataModule("Tiny-v0", replay_device=replay_device)  # type: ignore[arg-type]
    found.trainer = SimpleNamespace(  # type: ignore[assignment]
        strategy=SimpleNamespace(root_device=torch.device(root)), num_devices=1, num_nodes=1
    )
    return found


@pytest.mark.parametrize(
    ("replay_device", "root", "expected"),
    [("cpu", "cpu", "cpu"), ("cpu", "meta", "cpu"), ("learner", "cpu", "cpu"), ("learner", "meta", "meta")],
)
def test_the_buffer_is_where_it_was_asked_for(
    replay_device: str, root: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr("datamodules.online.Replay", lambda *args: made.append(args))
    module(replay_device, root).setup("fit")
    assert torch.device(made[0][-1]) == torch.device(expected)


def test_a_script_that_seeds_everything_seeds_what_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seeds of a script would otherwise have the goals, the noise and the batches of one."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert OnlineDataModule("Tiny-v0").seed == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that what follows is undone
    seed_everything(7)
    assert OnlineDataModule("Tiny-v0").seed == 7
    assert OnlineDataModule("Tiny-v0", seed=3).seed == 3


def test_before_a_trainer_the_place_of_the_learner_is_not_known() -> None:
    found = OnlineDataModule("Tiny-v0", replay_device="learner")
    assert found._device is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"logs_share": 0.7}, "data.logs_share say"),
        ({"min_ess": 0.5, "behaviour": BehaviourOptions()}, "data.min_ess, data.behaviour say"),
        ({"ingest": IngestOptions(audit=0)}, "data.ingest say"),
    ],
)
def test_how_to_learn_from_logs_is_refused_where_there_are_none(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"^{named} how to learn from logs; name them with data.logs"):
        OnlineDataModule("Tiny-v0", **given)


def test_a_least_effective_size_that_is_no_share_is_refused_before_logs_are_read() -> None:
    with pytest.raises(UserError, match=r"^data\.min_ess must lie in \[0, 1\], got 1\.5"):
        OnlineDataModule("Tiny-v0", logs="nowhere", min_ess=1.5)


@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_checkpoint_that_is_saved_after_the_run_is_gone_on_from(
    tiny: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    mine, fit = tmp_path / "mine.ckpt", Trainer.fit

    @functools.wraps(fit)
    def fit_and_save(self: Trainer, *args: Any, **options: Any) -> None:
        fit(self, *args, **options)
        self.save_checkpoint(mine)

    monkeypatch.setattr(Trainer, "fit", fit_and_save)
    options = {"data__task": "Tiny-v0", "data__collector__workers": workers}
    main(tiny("run", data__total_frames=64, **options))
    saved = torch.load(mine, weights_only=True)["OnlineDataModule"]
    assert (saved["frames"], saved["iteration"], saved["replay"]["buffer"]["_writer"]["_cursor"]) == (64, 2, 64)
    monkeypatch.undo()
    main([*tiny("more", data__total_frames=128, **options), f"--ckpt_path={mine}"])
    last = torch.load(tmp_path / "more" / "checkpoints" / "last.ckpt", weights_only=True)["OnlineDataModule"]
    assert (last["frames"], last["iteration"]) == (128, 4)


@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize(
    ("total", "warm_up", "capacity", "steps"),
    [(64, 0, 128, 64), (33, 0, 128, 64), (64, 96, 128, 128), (64, 33, 128, 96), (64, 1000, 128, 160)],
)
def test_the_bar_ends_where_the_run_does(
    tiny: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, total: int, warm_up: int, capacity: int, steps: int
) -> None:
    ends: list[tuple[int, int]] = []
    kept = OnlineDataModule.teardown

    def teardown(self: OnlineDataModule, stage: str) -> None:
        ends.append((self.position, self.total))
        kept(self, stage)

    monkeypatch.setattr(OnlineDataModule, "teardown", teardown)
    options = {"data__total_frames": total, "data__warmup_frames": warm_up, "data__capacity": capacity}
    main(tiny(data__task="Tiny-v0", data__collector__workers=0, **options))
    assert ends == [(steps, steps)]


# Iterations in this process, without a trainer ------------------------------------------------------------------------

FRAMES, ENVS = 16, 4


def small(**options: Any) -> OnlineDataModule:
    chosen: dict[str, Any] = {
        "total_frames": 6 * FRAMES, "frames_per_iteration": FRAMES, "capacity": 4 * FRAMES, "rounds": 2, "batch": 8,
        "collector": CollectorOptions(num_envs=ENVS, workers=0), "evaluation": EvaluationOptions(num_envs=1), "seed": 3,
    }  # fmt: skip
    return OnlineDataModule("Tiny-v0", **chosen | options)


def iterated(data: OnlineDataModule, count: int = 1, policy: Policy | None = None, epoch: int = 0) -> OnlineDataModule:
    """After some iterations, as a trainer would ask for them; simulators are closed."""
    begin(data, policy or make_policy(), epoch)
    for _ in range(count):
        next(iter(data.train_dataloader()))
    data._source.rollouts.close()  # type: ignore[union-attr]
    return data


def begin(data: OnlineDataModule, policy: Policy, epoch: int = 0) -> None:
    attach(data, policy)
    data.trainer.current_epoch = epoch  # type: ignore[union-attr, misc]
    data.trainer.lightning_module.init_from = None  # type: ignore[union-attr]
    data.setup("fit")


@pytest.mark.parametrize(("warm_up", "kept"), [(0, 1), (FRAMES, 1), (FRAMES + 1, 2), (3 * FRAMES, 3), (999, 4)])
def test_the_first_iteration_collects_until_the_buffer_is_warm_or_full(warm_up: int, kept: int) -> None:
    data = iterated(small(warmup_frames=warm_up))
    assert data.metrics()["replay/size"] == kept * FRAMES
    assert (data.position, data.iteration, data.total) == (kept * FRAMES, 1, (5 + kept) * FRAMES)


def test_advantages_are_recomputed_when_due_and_new_frames_valued_when_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    refresh, extend = Replay.refresh, Replay.extend

    def refreshed(self: Replay, policy: Policy) -> None:
        told.append("refresh")
        refresh(self, policy)

    def extended(self: Replay, frames: Any, policy: Policy, refresh_follows: bool = False) -> None:
        told.append(refresh_follows)
        extend(self, frames, policy, refresh_follows)

    monkeypatch.setattr(Replay, "refresh", refreshed)
    monkeypatch.setattr(Replay, "extend", extended)
    iterated(small(refresh_every=2), 4)
    assert told == [True, "refresh", False, True, "refresh", False]


def test_the_buffer_is_made_of_this_learners_part_once_and_for_a_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("datamodules.online.Replay", lambda *args: made.append(args) or object())
    data = small(reward_scale=0.5, estimator=GAE(gamma=0.9))
    attach(data, make_policy())
    data.trainer.num_devices = 2  # type: ignore[union-attr, misc]
    data.setup("validate")
    assert made == []
    for _ in range(2):
        data.setup("fit")
    ((capacity, estimator, advantages, sampler, scale, seed, _),) = made
    assert (capacity, estimator, advantages, sampler, scale) == (2 * FRAMES, GAE(gamma=0.9), "recompute", None, 0.5)
    assert seed == 3


@pytest.mark.parametrize("name", ["frames_per_iteration", "warmup_frames", "capacity", "batch"])
def test_what_learners_share_must_divide(name: str) -> None:
    data = small(**{name: 4 * FRAMES - 1} if name != "frames_per_iteration" else {})
    data.frames_per_iteration -= name == "frames_per_iteration"
    attach(data, make_policy())
    data.trainer.num_devices = 2  # type: ignore[union-attr, misc]
    with pytest.raises(UserError, match=rf"^data\.{name}=\d+ must be a multiple of the 2 learners"):
        data.setup("fit")


def test_each_learners_part_of_a_batch_has_some_of_both_and_its_part_of_an_iteration_is_what_is_told() -> None:
    data = small(logs="nowhere", logs_share=0.06, batch=16)  # 1 of 16, and none of 8
    attach(data, make_policy())
    data.trainer.num_devices = 2  # type: ignore[union-attr, misc]
    with pytest.raises(UserError, match=r"^data\.logs_share=0\.06 makes 0 of 8 transitions of a batch logged"):
        data.check_learners()
    alone = small()
    attach(alone, make_policy())
    alone.trainer.num_devices = 2  # type: ignore[union-attr, misc]
    assert any("here every 2 steps of a simulator" in note for note in alone.notes(1))


def test_simulators_must_share_an_iteration_evenly() -> None:
    with pytest.raises(UserError, match=r"^data\.frames_per_iteration=16 must be a multiple of the 5 simulators"):
        small(collector=CollectorOptions(num_envs=5, workers=0))


@pytest.mark.parametrize(
    ("epoch", "warm_up", "freeze", "init_from", "frozen"),
    [
        (0, 0, False, None, False),
        (0, 1, False, None, True),
        (1, 1, False, None, False),
        (0, 0, True, None, False),  # a new policy has none to keep
        (0, 0, False, "a.ckpt", False),
        (0, 0, True, "a.ckpt", True),
    ],
)
def test_moments_are_learned_unless_the_policy_is_to_stay_as_it_is(
    epoch: int, warm_up: int, freeze: bool, init_from: str | None, frozen: bool
) -> None:
    data, policy = small(freeze_moments=freeze), make_policy()
    begin(data, policy, epoch)
    data.trainer.lightning_module.critic_warmup = warm_up  # type: ignore[union-attr]
    data.trainer.lightning_module.init_from = init_from  # type: ignore[union-attr]
    assert data._moments_frozen is frozen
    learned: list[int] = []
    told: list[Any] = []
    policy.learn_privileged = told.append  # type: ignore[method-assign]
    policy.learn_moments = lambda seen, pool: learned.append(len(seen))  # type: ignore[method-assign, assignment]
    next(iter(data.train_dataloader()))
    data.teardown("fit")
    assert data._source.rollouts is None
    assert learned == ([] if frozen else [FRAMES])
    assert told == [None], "of a task that says nothing else"


def test_a_new_policy_looks_around_for_as_long_as_it_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, int]] = []
    monkeypatch.setattr("datamodules.online.look_around", lambda _, __, frames, seed: looked.append((frames, seed)))
    iterated(small(), 2)
    iterated(small(warmup_frames=2 * FRAMES))
    assert looked == [(FRAMES, 3), (2 * FRAMES, 3)]


def test_figures_are_of_all_learners(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small()
    data._source.episodes.finished.append((1.0, 0.0))
    monkeypatch.setattr("datamodules.online.ranks.others", lambda own: [(7, [(4.0, 1.0)]), (2, [(4.0, 1.0)])])
    assert data.metrics() == {"replay/size": 9.0, "train/return": 3.0}


def test_a_state_ends_episodes_unless_it_is_unnoticed() -> None:
    data = small()
    assert data.state_dict() == {}
    iterated(data)
    with data.unnoticed():
        state = data.state_dict()
    assert not data._source.at_boundary
    data.state_dict()
    assert data._source.at_boundary
    with data.unnoticed():
        data.state_dict()
    assert data._source.at_boundary, "as it was"
    assert set(STATE) <= set(state)


def test_a_run_goes_on_from_a_state_that_is_whole_and_its_own() -> None:
    state = iterated(small(), 2).state_dict()
    again = small(total_frames=12 * FRAMES)
    begin(again, make_policy())
    again.load_state_dict(state)
    assert (again.iteration, again.position, again.metrics()["replay/size"]) == (2, 2 * FRAMES, 2 * FRAMES)
    assert again.state_dict() is state, "until it has gone on"
    next(iter(again.train_dataloader()))
    again.teardown("fit")
    assert again.state_dict()["iteration"] == 3
    later = small()
    attach(later, make_policy())
    later.load_state_dict(state)  # before it is set up, as in a trainer
    later.setup("fit")
    assert later.metrics()["replay/size"] == 2 * FRAMES


def test_a_state_of_another_run_is_refused() -> None:
    state = iterated(small(), 2).state_dict()
    own = {"frames_per_iteration": 2 * FRAMES, "warmup_frames": 0}
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        *[({}, {name: None}, rf"no training state to resume from: {name} missing$") for name in STATE],
        ({}, {"task": "Pendulum-v1"}, r"was trained on 'Pendulum-v1', data\.task is 'Tiny-v0'"),
        ({}, {"others": [{}]}, "the replay of 2 learners, the run has 1"),
        ({}, {"logs": {"key": "some"}}, r"was trained on other logs than data\.logs"),
        (own, {}, "the checkpoint's iterations are of 16 frames"),
        ({"capacity": FRAMES}, {}, r"holds 32 transitions, data\.capacity is 16; raise it"),
        ({"store_params": True}, {}, r"was collected with data\.store_params=false"),
        ({"advantages": "stored", "reward_scale": 0.7}, {}, "with data.advantages=stored those of the checkpoint stay"),
    ]
    for options, changed, said in cases:
        data = small(**options)
        attach(data, make_policy())
        given = {name: value for name, value in (state | changed).items() if value is not None or name == "logs"}
        with pytest.raises(UserError, match=said):
            data.load_state_dict(given)
    recomputed = small(reward_scale=0.7)
    attach(recomputed, make_policy())
    recomputed.load_state_dict(state)


def test_a_run_of_one_checkpoint_is_told_nothing_of_those_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyDataModule, "notes", lambda self, every: ["anyway"])
    data = small(frames_per_iteration=ENVS, total_frames=5 * ENVS)
    assert data.iterations == 5
    assert data.notes(5) == ["anyway"]
    first, second = data.notes(4)
    assert first == "anyway"
    assert second.startswith("a checkpoint ends all episodes, here every 4 steps")


def test_buffers_that_cannot_serve_are_refused_by_how_logs_are_recomputed() -> None:
    with pytest.raises(UserError, match=r"^data\.refresh_every=2 is of advantages that are recomputed"):
        small(advantages="stored", refresh_every=2)
    small(advantages="stored", refresh_every=2, logs="nowhere")
    with pytest.raises(UserError, match=r"^data\.reward_scale must be positive, got 0$"):
        small(reward_scale=0)
    with pytest.raises(UserError, match=r"^data\.seed must not be negative, got -1$"):
        small(seed=-1)


def test_noise_is_of_the_iteration_and_weights_are_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    act_by = datamodules.online.RolloutSource.act_by

    def acts(self: Any, policy: Policy, seed: int) -> None:
        seeds.append(seed)
        act_by(self, policy, seed)

    monkeypatch.setattr(datamodules.online.RolloutSource, "act_by", acts)
    iterated(small(), 3)
    assert len(set(seeds)) == 3
