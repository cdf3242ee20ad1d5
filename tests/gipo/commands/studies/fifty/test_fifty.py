"""The study of all tasks: who runs where, a row by hand, what is said of many, and runs that are made once."""

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gipo.commands.studies import cli
from gipo.commands.studies.fifty import entrants, judge, rivals, study, tables
from gipo.commands.studies.fifty.entrants import Entry
from gipo.commands.studies.fifty.judge import Episodes
from gipo.commands.studies.fifty.judged import Judged, sampled
from gipo.commands.studies.fifty.record import RESULT, Finished, Record, processor, read_result
from gipo.common.errors import UserError
from gipo.policies import Spaces, TokenPolicy
from tests.in_process import InThisProcess

POLICY = TokenPolicy(Spaces(39, (-1.0,) * 4, (1.0,) * 4))
RESULTS: Finished = {
    "evaluations": [(10_000, 4.0, 0.5), (20_000, 8.5, 0.9), (30_000, 13.0, 0.85)],
    "seconds": 14.0, "processor": "quick", "episodes": 50, "success": 45, "success_last": 40, "returned": 1234.5,
}  # fmt: skip


class Judge:
    """Gives what it is told to."""

    def __init__(self, *successes: float):
        self.successes = iter(successes)

    def __call__(self, act: object) -> float:
        return next(self.successes)

    def test(self, act: object) -> Episodes:
        return Episodes(np.array([True, True]), np.array([True, False]), np.array([10.0, 20.0]))


def test_all_of_a_seed_come_before_the_next_and_what_takes_hours_runs_by_lot() -> None:
    runs = entrants.plan(["GIPO", "SB3 SAC"], ["a-v3", "b-v3", "c-v3"], [1, 2], lot=1, lot_seed=0)
    (drawn,) = entrants.by_lot(["c-v3", "a-v3", "b-v3"], 1, 0)
    assert [one.seed for one in runs] == [1] * 4 + [2] * 4
    assert {one.task for one in runs if one.entrant == "SB3 SAC"} == {drawn}
    assert {one.task for one in runs if one.entrant == "GIPO"} == {"a-v3", "b-v3", "c-v3"}


def test_the_fifty_are_all_there_and_twelve_are_developed_on() -> None:
    tasks = study.all_tasks()
    assert len(tasks) == 50
    assert sum(map(entrants.is_development, tasks)) == 12


def test_who_is_unknown_is_refused() -> None:
    with pytest.raises(UserError, match=r"'GIPPO': there is none; the nearest: GIPO"):
        entrants.refuse_unknown(["GIPPO"])


def test_others_are_compared_with_one_that_runs_on_all_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fifty", "--out", str(tmp_path), "--entrants", "SB3 SAC", "GIPO"])
    assert "--entrants SB3 SAC: others are compared with the first" in capsys.readouterr().err


def test_seconds_are_of_training_alone(tmp_path: Path) -> None:
    # begins at 100, two evaluations that take 50 s, ends at 210
    clock = iter([0.0, 100.0, 104.0, 154.0, 158.0, 208.0, 210.0])
    record = Record("reach-v3", 10_000, clock=lambda: next(clock))
    record._judge = Judge(0.25, 0.75)  # type: ignore[assignment]
    record.begin()
    for steps in (5_000, 10_240, 15_000, 20_000):
        assert not record.iteration(steps, sampled(POLICY))
    record.end(sampled(POLICY), tmp_path)
    assert json.loads((tmp_path / RESULT).read_text()) == {
        "evaluations": [[10_240, 4.0, 0.25], [20_000, 8.0, 0.75]],
        "seconds": 10.0, "processor": processor(), "episodes": 2, "success": 2, "success_last": 1, "returned": 15.0,
    }  # fmt: skip


def test_what_else_the_machine_does_takes_no_seconds(tmp_path: Path) -> None:
    record = Record("reach-v3", 10_000)
    record._judge = Judge(0.25)  # type: ignore[assignment]
    record.begin()
    time.sleep(0.5)  # as where the process must wait for a core
    record.iteration(10_000, sampled(POLICY))
    record.end(sampled(POLICY), tmp_path)
    assert read_result(tmp_path)["seconds"] < 0.4


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    lacking = ('{"seconds": 1}', "lacks episodes, evaluations, processor")
    whole = {
        "evaluations": [[10, 1.0, 0.5]], "seconds": 1.0, "processor": "x", "episodes": 50, "success": 1,
        "success_last": 0, "returned": 2.0,
    }  # fmt: skip
    short, nan = [[10, 1.0]], float("nan")
    odd = [{"success": None}, {"evaluations": []}, {"evaluations": short}, {"returned": nan}, {"episodes": 0}]
    odd += [{"success": 51}, {"success": -1, "success_last": -1}, {"success_last": 2}, {"evaluations": [[10, 1.0, 2]]}]
    forged = [(json.dumps(whole | each), "holds what is no figure of a run") for each in odd]
    for text, words in (("{", "cannot be read"), ("[]", "cannot be read"), lacking, *forged):
        (tmp_path / RESULT).write_text(text)
        with pytest.raises(UserError, match=words):
            read_result(tmp_path)


def test_a_row_by_hand() -> None:
    row = tables.row_of(Entry("GIPO", "push-v3", 22), RESULTS, 120_000, "again")
    assert (row["side"], row["success"], row["success_last"]) == ("developed on", 0.9, 0.8)
    # Wilson's interval of 45 in 50
    assert (row["success_low"], row["success_high"]) == pytest.approx((0.786, 0.957), abs=5e-4)
    assert (row["steps_to_0.9"], row["seconds_to_0.9"], row["return"]) == (20_000, 8.5, 1234.5)
    assert row["command"] == "again"


def test_the_command_of_a_run_has_all_that_it_depends_on() -> None:
    more = ["data.rounds=1", "data.sampler=a b"]
    asked = "--tasks push-v3 --seeds 22 --frames 500 --every 100 --lot 50 --out again"
    assert Entry("GIPO", "push-v3", 22).command(500, 100, more) == (
        f"gipo-study fifty --entrants 'GIPO' {asked} --train data.rounds=1 'data.sampler=a b'"
    )
    # `--train` is for ours alone
    assert Entry("SB3 PPO", "push-v3", 22).command(500, 100, more) == f"gipo-study fifty --entrants 'SB3 PPO' {asked}"


def test_the_seconds_of_a_rival_begin_when_its_environments_and_model_are_made() -> None:
    pytest.importorskip("stable_baselines3")
    heard: list[str] = []

    class Witness:
        def begin(self) -> None:
            heard.append("begin")

        def iteration(self, steps: int, act: object) -> bool:
            heard.append(f"iteration {steps}")
            return True

    def made(env: Any, seed: int) -> Any:
        heard.append("model")
        return rivals.ppo(env, seed)

    rivals.train(replace(rivals.RIVALS["ppo"], num_envs=1, make=made), "reach-v3", 0, 64, Witness())
    assert heard == ["model", "begin", "iteration 64"]


def test_many_tasks_by_hand() -> None:
    def row(entrant: str, task: str, seed: int, success: int, seconds: float) -> dict[str, Any]:
        found: Finished = {**RESULTS, "success": success, "evaluations": [(10_000, seconds, success / 50)]}
        return tables.row_of(Entry(entrant, task, seed), found, 1, "again")

    def of(seeds: tuple[int, ...]) -> str:
        return tables.report([
            *(row("GIPO", "assembly-v3", seed, 50, 4.0) for seed in seeds),
            *(row("GIPO", "basketball-v3", seed, 10, 4.0) for seed in seeds),
            *(row("SB3 PPO", "assembly-v3", seed, 46, 10.0) for seed in seeds),
            *(row("SB3 PPO", "basketball-v3", seed, 20, 10.0) for seed in seeds),
        ])  # fmt: skip

    def cells(text: str) -> list[list[str]]:
        return [line.split(" | ") for line in text.splitlines() if line.startswith(("| GIPO", "| SB3"))]

    text = of((1, 2, 3))
    assert text.startswith("## Tasks held out: 2")
    assert "developed" not in text
    ours, theirs = cells(text)
    assert [*ours[1:3], ours[5]] == ["2", "0.60", "1"]
    assert theirs[2] == "0.66"
    assert theirs[6] == "10 (GIPO: 4, 3 runs)"
    assert theirs[7].startswith("0.50 [")
    # +.08 on one task and −.20 on the other: −.06 ± 12.706 (t of one degree of freedom) · .198 / √2
    assert theirs[8] == "-0.06 [-1.00, +1.00]"
    assert theirs[9] == "1 of 2 |"
    assert "| assembly-v3 | 1.00 (1.00 1.00 1.00), 10k | 0.92 (0.92 0.92 0.92), 10k |" in text

    few = of((1, 2))
    assert few.startswith("From fewer than 3 seeds nothing is concluded")
    ours, theirs = cells(few)
    assert ours[2:7] == ["0.60", "–", "–", "1", "4"]
    assert theirs[2:] == ["0.66", "–", "–", "1", "10 (GIPO: 4, 2 runs)", "–", "–", "1 of 2 |"]


def cells_of(*successes: tuple[str, str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Cells of the summary, by entrant, of these successes of 50 by seed."""
    rows = [
        tables.row_of(Entry(entrant, task, seed), {**RESULTS, "success": success}, 1, "again")
        for entrant, task, found in successes
        for seed, success in enumerate(found)
    ]
    lines = tables.summary(rows).splitlines()[2:]
    return {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in lines)}


def test_entrants_are_compared_on_the_tasks_of_both_whoever_is_first() -> None:
    sac = ("SB3 SAC", "assembly-v3", (10, 10, 10))
    ours = [("GIPO", task, (50, 50, 50)) for task in ("assembly-v3", "basketball-v3", "box-close-v3")]
    cells = cells_of(sac, *ours)
    assert [cells["GIPO"][0], cells["GIPO"][8]] == ["3", "0 of 1"]
    assert cells["GIPO"][6].startswith("0.00 [")
    # drawn for no task of this side
    assert cells_of(sac, ("GIPO", "basketball-v3", (50, 50, 50)))["GIPO"][6:] == ["–", "–", "–"]


def test_a_mean_over_fewer_tasks_stands_beside_that_of_the_first_one_on_the_same() -> None:
    ours = [("GIPO", "assembly-v3", (50, 50, 50)), ("GIPO", "basketball-v3", (0, 0, 0))]
    cells = cells_of(*ours, ("SAPO", "assembly-v3", (30, 30, 30)))
    assert [cells["GIPO"][1], cells["SAPO"][1]] == ["0.50", "0.60 (GIPO: 1.00 on 1 task)"]


def test_seconds_are_of_runs_of_one_seed_as_others_may_have_had_another_processor() -> None:
    def row(entrant: str, seed: int, seconds: float, success: float = 1.0) -> dict[str, Any]:
        found: Finished = {**RESULTS, "evaluations": [(10_000, seconds, success)]}
        return tables.row_of(Entry(entrant, "assembly-v3", seed), found, 1, "again")

    ours = [row("GIPO", 0, 4.0), row("GIPO", 1, 8.0), row("GIPO", 2, 8.0)]
    theirs = [row("SB3 PPO", 0, 4.0, 0.2), row("SB3 PPO", 1, 8.0), row("SB3 PPO", 2, 9.0, 0.3)]
    assert "| 8 (GIPO: 8, 1 run) |" in tables.summary([*ours, *theirs])


def test_means_that_are_level_are_level_whatever_their_last_bit() -> None:
    # both succeed in 135 of 150 episodes, a share of .9; the float mean of the first three is below that
    cells = cells_of(("GIPO", "assembly-v3", (41, 47, 47)), ("SB3 PPO", "assembly-v3", (45, 45, 45)))
    assert (cells["GIPO"][4], cells["SB3 PPO"][4]) == ("1", "1")
    assert cells["SB3 PPO"][8] == "1 of 1"


def test_evaluation_samples_without_the_generator_of_training() -> None:
    before = torch.get_rng_state()
    act = sampled(POLICY)
    actions = act(np.zeros((3, 39), np.float32))
    assert actions.shape == (3, 4)
    assert np.abs(actions).max() <= 1
    assert not np.array_equal(actions, act(np.zeros((3, 39), np.float32)))
    assert torch.equal(before, torch.get_rng_state())


def test_our_run_is_evaluated_when_due_and_tested_at_its_end(tmp_path: Path) -> None:
    callback = Judged("reach-v3", 10_000)
    callback._record._judge = Judge(0.5, 0.9)  # type: ignore[assignment]
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(position=0), default_root_dir=str(tmp_path))
    module: Any = SimpleNamespace(policy=POLICY)
    callback.on_train_start(trainer, module)
    for steps in (9_000, 12_000, 21_000):
        trainer.datamodule.position = steps
        callback.on_train_batch_end(trainer, module)
    callback.on_fit_end(trainer, module)
    found = read_result(tmp_path)
    assert [(steps, success) for steps, _, success in found["evaluations"]] == [(12_000, 0.5), (21_000, 0.9)]
    assert found["success"] == 2


def test_a_resumed_run_keeps_its_evaluations_and_its_seconds(tmp_path: Path) -> None:
    # begins at 100, evaluates after 4 s for 50 s, is saved after 3 s more
    clock = iter([0.0, 100.0, 104.0, 154.0, 157.0])
    first = Record("reach-v3", 10_000, clock=lambda: next(clock))
    first._judge = Judge(0.25)  # type: ignore[assignment]
    first.begin()
    first.iteration(12_000, sampled(POLICY))
    saved = first.state()
    # is read at 1000, begins at 1100, ends after 5 s
    later = iter([900.0, 1000.0, 1100.0, 1105.0])
    second = Record("reach-v3", 10_000, clock=lambda: next(later))
    second._judge = Judge()  # type: ignore[assignment]
    second.resume(saved)
    second.begin()
    second.iteration(13_000, sampled(POLICY))
    second.end(sampled(POLICY), tmp_path)
    assert read_result(tmp_path)["evaluations"] == [[12_000, 4.0, 0.25]]
    assert read_result(tmp_path)["seconds"] == 12.0


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--tasks", "reach-v9"], "--tasks reach-v9: MetaWorld has no such task; the nearest: reach-v3"),
        (["--tasks", "reach-v3", "reach-v3"], "--tasks names a value twice"),
        (["--seeds", "1", "1"], "--seeds names a value twice"),
        (["--entrants", "GIPO", "GIPO"], "--entrants names a value twice"),
        (["--train", "seed_everything=1"], "--train seed_everything=1: the study itself sets seed_everything"),
        (["--train", "model.objective.sigma=1"], "the study itself sets model.objective.sigma"),
        (["--train", "data.collector.workers=1"], "the study itself sets data.collector.workers"),
        (["--train", "trainer.limit_val_batches=1"], "the study itself sets trainer.limit_val_batches"),
        (["--frames", "5000"], "--every 10000: a run of 5000 frames would not be evaluated"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    extra: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fifty", "--out", str(tmp_path), *extra])
    assert reason in capsys.readouterr().err


def test_runs_of_ours_and_of_others_make_tables_and_a_figure_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "Forks", InThisProcess)
    monkeypatch.setattr(judge, "EPISODES", 1)
    monkeypatch.setattr(judge, "TEST_EPISODES", 1)

    def train(rival: object, task: str, seed: int, steps: int, witness: Record) -> Any:
        witness.iteration(steps, sampled(POLICY))
        return sampled(POLICY)

    monkeypatch.setattr(study, "train", train)
    args = [
        "fifty",
        "--tasks",
        "reach-v3",
        "--seeds",
        "1",
        "--entrants",
        "GIPO",
        "SB3 PPO",
        "--frames",
        "16",
        "--every",
        "16",
    ]
    args += ["--processes", "1", "--out", str(tmp_path), "--train", "data.frames_per_iteration=16", "data.rounds=1"]
    args += ["data.batch=16", "data.collector.num_envs=2"]
    cli.main(args)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(RESULT)}
    assert len(written) == 2
    assert {"fifty.csv", "fifty.md", "fifty.png", "curves.csv"} <= {path.name for path in tmp_path.iterdir()}
    cli.main(args)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob(RESULT)} == written
    published = (tmp_path / "fifty.csv").read_text()
    cli.main([*args, "--tasks", "push-v3", "reach-v3", "--entrants", "GIPO", "SAPO", "SB3 PPO", "--so-far"])
    assert (tmp_path / "fifty.csv").read_text() == published
    assert (tmp_path / "fifty.md").read_text().startswith("So far 2 of 6 runs have ended.\n\n")
    with pytest.raises(SystemExit, match="2"):  # of two seeds one has ended
        cli.main([*args, "--seeds", "1", "2", "--so-far"])
    assert "on no task have all runs of GIPO ended" in capsys.readouterr().err
    cli.main([*args, "--seeds", "1", "2", "--entrants", "GIPO"])
    cli.main([*args, "--seeds", "1", "2", "--so-far"])
    said = "So far 3 of 4 runs have ended. 1 of these are left out: of their entrant, or of GIPO, not all seeds"
    assert said in (tmp_path / "fifty.md").read_text()

    def fail(*_: Any) -> Any:
        raise UserError("the machine went down")

    monkeypatch.setattr(study, "train", fail)
    with pytest.raises(SystemExit, match="2"):
        cli.main([*args, "--seeds", "1", "2", "--entrants", "GIPO", "SB3 PPO"])
    reason = f"1 of 4 runs failed, all others are made and stand in {tmp_path / 'fifty.csv'}; the first: the machine"
    assert reason in capsys.readouterr().err
    assert len((tmp_path / "fifty.csv").read_text().splitlines()) == 1 + 3
    config = next(tmp_path.glob("GIPO/*-2/config.yaml"))
    config.write_text(config.read_text().replace("policy_lr: 0.0003", "policy_lr: 0.0004"))
    with pytest.raises(SystemExit, match="2"):
        cli.main([*args, "--seeds", "1", "2", "--entrants", "GIPO", "--so-far"])
    assert "has model.policy_lr 0.0004" in capsys.readouterr().err
    for name, other in (("GIPO", "reach-v3-1 was made with other options"), ("SB3 PPO", "with other options")):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*args, "--entrants", name, "--frames", "32"])
        assert other in capsys.readouterr().err
