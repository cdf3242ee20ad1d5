"""Runs of two learners: one checkpoint of both, resumed bit for bit, and ended together whatever ends one of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gipo.cli import main
from tests.fingerprint import fingerprints
from tests.ranks import environment, free_port, on_ranks
from tests.runs import Process, living, within

Args = Callable[..., list[str]]
Start = Callable[..., Process]

LEARNERS = {"trainer__devices": 2, "trainer__strategy": "ddp", "data__task": "Tiny-v0"}
LONG = {"data__total_frames": 32 * 5000, "checkpoint__every": 5000}


def run(args: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)
        main(args)


def run_each(runs: list[list[str]]) -> None:
    for args in runs:
        run(args)


@pytest.mark.campaign
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_learners_resume_bit_for_bit(strategy: str, tiny: Args, tmp_path: Path) -> None:
    options = LEARNERS | {"trainer__strategy": strategy, "data__warmup_frames": 64, "checkpoint__every": 2}
    options |= {"trainer__check_val_every_n_epoch": 3, "model__objective": "AgeAwareGIPO"}  # which remembers
    last = tmp_path / "again" / "checkpoints" / "last.ckpt"
    whole = tiny("whole", data__total_frames=32 * 6, **options)
    begun = tiny("again", data__total_frames=32 * 4, **options)
    resumed = tiny("again", data__total_frames=32 * 6, ckpt_path=last, **options)
    on_ranks(run_each, [whole, begun, resumed])
    assert fingerprints(last) == fingerprints(tmp_path / "whole" / "checkpoints" / "last.ckpt")


def test_one_checkpoint_holds_what_both_learners_need(tiny: Args, tmp_path: Path) -> None:
    args = tiny(**LEARNERS | {"trainer__strategy": "fsdp", "data__warmup_frames": 64})
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    on_ranks(run, args)
    saved = torch.load(last, weights_only=True)
    data = saved["OnlineDataModule"]
    (second,) = data["others"]
    for learner in (data, second):
        assert learner["frames"] == 32 * (4 + 1)  # one iteration's worth more, to warm up
        assert len(learner["replay"]["frames"]["episode"]) == 96 // 2
    assert not torch.equal(
        data["replay"]["frames"]["observation"], second["replay"]["frames"]["observation"]
    )  # goals and noise of their own
    # Each learner saw half of the observations, those before the first iteration too; both standardise by all of them.
    assert int(saved["state_dict"]["policy.normaliser.count"]) == data["frames"] + 64
    # A checkpoint of two learners is as good a policy as any other.
    alone = ["--trainer.devices=1", "--trainer.strategy=auto", "--data.evaluation.test_episodes=2"]
    main(["test", *args[1:], f"--ckpt_path={last}", *alone])


@pytest.mark.campaign
def test_learners_that_share_a_pretrained_model_resume(tmp_path: Path) -> None:
    """Its weights are no part of a checkpoint; what learns beside them is bit for bit what it is in one run."""
    pytest.importorskip("peft", reason="the extra `vla`")
    from tests.gipo.vla.builders import save_model

    def args(name: str, iterations: int, *more: str) -> list[str]:
        options: dict[str, object] = {
            "config": "toy_vla.yaml", "trainer.default_root_dir": tmp_path / name, "trainer.strategy": "fsdp",
            "trainer.devices": 2, "data.total_frames": 16 * iterations, "data.frames_per_iteration": 16,
            "data.capacity": 32, "data.rounds": 1, "data.batch": 8, "data.collector.num_envs": 4,
            "data.collector.workers": 0, "data.evaluation.num_envs": 2, "checkpoint.every": 2,
            "model.policy": "gipo.vla.openvla.VocabTailPolicy", "model.policy.bins": 16,
            "model.policy.network": "gipo.vla.huggingface.HuggingFaceNetworks",
            "model.policy.network.pretrained": pretrained, "model.policy.network.rank": 2,
        }  # fmt: skip
        return ["fit", *(f"--{name}={value}" for name, value in options.items()), *more]

    pretrained = save_model(tmp_path / "model")
    last = tmp_path / "again" / "checkpoints" / "last.ckpt"
    on_ranks(run_each, [args("whole", 3), args("again", 2), args("again", 3, f"--ckpt_path={last}")])
    found, whole = (fingerprints(path) for path in (last, tmp_path / "whole" / "checkpoints" / "last.ckpt"))
    assert found["state_dict"] == whole["state_dict"]


def test_what_cannot_be_divided_is_refused(tiny: Args, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in {
        ("data__batch", 33): "data.batch=33 must be a multiple of the 2 learners",
        ("data__capacity", 97): "data.capacity=97 must be a multiple of the 2 learners",
        ("data__frames_per_iteration", 36): "data.frames_per_iteration=36 must be a multiple of the 8 simulators",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            main(tiny(**LEARNERS | dict([options])))
        assert message in capsys.readouterr().err


def test_as_many_learners_have_to_resume(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_plot: None
) -> None:
    alone = LEARNERS | {"trainer__devices": 1, "trainer__strategy": "auto"}
    main(tiny(**alone))
    with pytest.raises(SystemExit, match="2"):
        main(tiny(ckpt_path=tmp_path / "run" / "checkpoints" / "last.ckpt", **LEARNERS))
    assert "holds the replay of 1 learners, the run has 2" in capsys.readouterr().err


def started(start: Start, args: list[str]) -> list[Process]:
    """Two ranks, training."""
    port = free_port()
    processes = [start(args, environment(rank, 2, port)) for rank in range(2)]
    processes[0].wait_for_training()
    return processes


def assert_the_other_ends_too(number: int, victim: int, start: Start, args: list[str]) -> None:
    processes = started(start, args)
    lost, other = processes[victim], processes[1 - victim]
    lost.signal(number)
    assert other.wait(30) == 2
    assert other.output.count("gipo: error: another learner of this run died or hung") == 1
    assert "Traceback" not in other.output
    if number == signal.SIGSTOP:
        lost.signal(signal.SIGCONT)  # it ends when it goes on
    assert within(30, lambda: not lost.family() + other.family())


def test_a_lost_learner_ends_the_other_with_one_clear_line(start: Start, tiny: Args) -> None:
    assert_the_other_ends_too(signal.SIGKILL, 0, start, tiny(**LEARNERS | LONG))


@pytest.mark.campaign
@pytest.mark.parametrize("repeat", range(20))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_twenty_times_a_lost_learner_ends_the_other(number: int, repeat: int, start: Start, tiny: Args) -> None:
    strategy = ("ddp", "fsdp")[repeat // 2 % 2]
    assert_the_other_ends_too(number, repeat % 2, start, tiny(**LEARNERS | LONG | {"trainer__strategy": strategy}))


def test_sigterm_to_one_learner_saves_and_ends_both(start: Start, tiny: Args, tmp_path: Path) -> None:
    processes = started(start, tiny(**LEARNERS | LONG))
    processes[1].signal(signal.SIGTERM)
    assert [process.wait(30) for process in processes] == [143, 143], processes[0].output + processes[1].output
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["OnlineDataModule"]
    assert len(saved["others"]) == 1


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("number", "victim"), [(signal.SIGKILL, "second"), (signal.SIGSTOP, "second"), (signal.SIGKILL, "first")]
)
def test_learners_that_lightning_started_end_together(number: int, victim: str, tiny: Args, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    args = [sys.executable, "-m", "gipo.cli", *tiny(**LEARNERS | LONG | {"data__task": "Pendulum-v1"})]
    with open(log, "w") as output:
        first = subprocess.Popen(args, stdout=output, stderr=output, start_new_session=True)
    try:
        family = lambda: living(lambda fields: int(fields[3]) == first.pid)  # noqa: E731
        assert within(120, lambda: "step/s" in log.read_text().rpartition("0%|")[2]), log.read_text()
        children = living(lambda fields: int(fields[1]) == first.pid)
        (second,) = (pid for pid in children if b"\0LOCAL_RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(second if victim == "second" else first.pid, number)
        assert within(30, lambda: not family())  # the first takes a stopped one that it started along
        assert first.wait() != 0
        # Lightning's launcher may be quicker than our own line where a process that it started died.
        launcher = "terminated with code -9" if (number, victim) == (signal.SIGKILL, "second") else "another learner"
        assert "another learner" in log.read_text() or launcher in log.read_text()
    finally:
        for pid in family():
            os.kill(pid, signal.SIGKILL)
