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
from datamodules.ingest import IngestOptions
from datamodules.online import OnlineDataModule
from datamodules.replay.behaviour import BehaviourOptions
from gipo.cli import main
from gipo.common.errors import UserError

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
