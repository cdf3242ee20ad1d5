"""The race of recipes: what is dealt, what a regression makes of it by hand, who stays, and that it goes on."""

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm.auto import tqdm

from gipo.commands.studies import cli
from gipo.commands.studies.options import refuse_settled
from gipo.commands.studies.pipeline.versions import OtherVersion
from gipo.commands.studies.recipe import study
from gipo.commands.studies.recipe.candidates import FACTORS, TASKS
from gipo.commands.studies.recipe.dealing import Trial, deal
from gipo.commands.studies.recipe.effects import PRIOR, Alternative, Effect, better_half, effects, posterior, winner
from gipo.commands.studies.recipe.report import of_final
from gipo.commands.studies.recipe.runs import Race, scores
from gipo.common.errors import UserError
from tests.in_process import InThisProcess

LEVELS = {"kl": ["0.1", "0", "0.3"], "lr": ["1", "2"], "fixed": ["only"]}


@given(runs=st.integers(4, 200), share=st.floats(0.05, 0.9), seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_every_alternative_is_dealt_as_often_as_the_others(runs: int, share: float, seed: int) -> None:
    trials = deal(LEVELS, ["a", "b", "c"], [7, 8], runs, share, seed)
    assert len(trials) == runs
    counts = Counter(trial.levels["kl"] for trial in trials)
    assert counts["0"] == counts["0.3"] == max(1, round(share * runs / 2))
    assert {trial.levels["fixed"] for trial in trials} == {"only"}
    of_tasks = Counter(trial.task for trial in trials)
    assert max(of_tasks.values()) - min(of_tasks.values()) <= 1
    assert trials == deal(LEVELS, ["a", "b", "c"], [7, 8], runs, share, seed)


def test_a_second_seed_comes_when_every_task_had_its_turn() -> None:
    trials = deal(LEVELS, ["a", "b"], [7, 8], 5, 0.25, 0)
    assert [(trial.task, trial.seed) for trial in trials] == [("a", 7), ("b", 7), ("a", 8), ("b", 8), ("a", 7)]


def test_what_an_alternative_adds_is_found_under_other_changes_and_tasks() -> None:
    rng = np.random.default_rng(0)
    trials = deal(LEVELS, ["easy", "hard"], [0], 400, 0.4, 1)
    true = {("kl", "0"): 0.1, ("kl", "0.3"): -0.2, ("lr", "2"): 0.0}
    score = [
        {"easy": 0.7, "hard": 0.1}[trial.task]
        + sum(true.get(item, 0.0) for item in trial.levels.items())
        + 0.1 * rng.standard_normal()
        for trial in trials
    ]
    found = effects(trials, score, LEVELS)
    assert set(found) == set(true)
    for each, added in true.items():
        effect = found[Alternative(*each)]
        assert abs(effect.mean - added) < 3 * effect.error
        assert 0.005 < effect.error < 0.02


def test_the_posterior_by_hand() -> None:
    # one coefficient, four observations: with s² the noise, b = Σxy/(Σx² + s²/τ²), error² = s²/(Σx² + s²/τ²)
    x, y = np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([0.3, 0.1, 0.1, -0.1])
    mean, error = posterior(x, y, np.array([PRIOR**-2]))
    variance = (error[0] ** -2 - PRIOR**-2) ** -1 * 2  # Σx² = 2
    assert mean[0] == pytest.approx(0.4 / (2 + variance / PRIOR**2))
    free = 4 - 2 / (2 + variance / PRIOR**2)
    assert variance == pytest.approx(((y - x @ mean) ** 2).sum() / free, rel=1e-3)


def test_an_effect_is_expected_to_be_a_tenth_before_any_run() -> None:
    trials = [
        Trial("a", seed, {"kl": kl, "lr": "1", "fixed": "only"}) for seed, kl in enumerate(("0.1", "0.1", "0", "0"))
    ]
    score = np.array([0.1, 0.3, 0.5, 0.9])
    found = effects(trials, score, LEVELS)[Alternative("kl", "0")]
    # of the task, of which nothing is expected, and of the alternative, b ~ N(0, .1²)
    mean, error = posterior(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]), score, np.array([0.0, 100.0]))
    assert (found.runs, found.mean, found.error) == (2, pytest.approx(mean[1]), pytest.approx(error[1]))


def test_an_alternative_that_no_run_had_says_nothing() -> None:
    trials = [Trial("a", 0, {"kl": "0.1", "lr": "1", "fixed": "only"})] * 3
    assert effects(trials, [0.1, 0.2, 0.3], LEVELS) == {}


def test_the_better_half_stays_and_the_best_of_each_factor_wins() -> None:
    found = {
        Alternative("kl", "0"): Effect(5, 0.05, 0.02),
        Alternative("kl", "0.3"): Effect(5, 0.08, 0.02),
        Alternative("lr", "2"): Effect(5, 0.01, 0.02),
    }
    assert better_half(found, LEVELS) == {"kl": ["0.1", "0", "0.3"], "lr": ["1"], "fixed": ["only"]}
    assert winner(found, LEVELS) == {"kl": "0.3", "lr": "1", "fixed": "only"}
    found[Alternative("kl", "0")] = Effect(5, 0.09, 0.02)
    assert winner(found, LEVELS)["kl"] == "0"


def test_differences_are_of_pairs_by_hand() -> None:
    rows: list[dict[str, Any]] = [
        {"recipe": name, "task": task, "seed": 0, "area": area, "final": area}
        for name, areas in (("default", (0.2, 0.6)), ("winner", (0.5, 0.7)))
        for task, area in zip(("a", "b"), areas, strict=True)
    ]
    first, second = of_final(rows)
    assert first == ["default", 2, "0.400", "", "0.400", ""]
    assert second[2:4] == ["0.600", "+0.200 ± 0.100"]


def test_scores_are_of_evaluations(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(
        "frames,val/success,val/return\n1000,,\n2000,0.25,10\n3000,,\n4000,0.75,31.26\n"
    )
    assert scores(tmp_path) == {"area": 0.5, "final": 0.75, "return": 31.3}
    (tmp_path / "curves.csv").write_text("frames,train/success\n1000,0.5\n")
    with pytest.raises(UserError, match="holds no evaluation"):
        scores(tmp_path)
    (tmp_path / "curves.csv").write_text("frames,val/return\n1000,-5\n")
    with pytest.raises(UserError, match="tells no success, by which recipes are compared; name others in --tasks"):
        scores(tmp_path)


BEFORE = {  # where what was the default has to be said: of the policy for its options, of the others as they were
    "policy": ("model.policy=TokenPolicy",),
    "objective": ("model.objective=GIPO",),
    "value_lr": ("model.value_lr=3e-4",),
}


def test_what_was_the_default_comes_first() -> None:
    assert len(TASKS) == 12
    for factor, levels in FACTORS.items():
        default, *others = levels.values()
        assert default == BEFORE.get(factor, ()), factor
        assert all(others), factor


def test_a_recipe_of_two_names_is_run_once() -> None:
    recipes = {"default": {"kl": "0"}, "winner": {"kl": "0"}, "other": {"kl": "0.3"}}
    assert list(study._distinct(recipes)) == ["default", "other"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [("kll=0", "there is no factor 'kll'; the nearest: kl"), ("kl=7", "kl has no level '7'; it has 0.1, 0, 0.03, 0.3")],
)
def test_a_finalist_that_is_none_is_refused(changes: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        study.finalist(changes)
    assert study.finalist("kl=0,updates=16x512")["updates"] == "16x512"


@pytest.mark.parametrize(("factor", "level"), [(factor, level) for factor in FACTORS for level in FACTORS[factor]])
def test_every_level_can_be_a_finalist(factor: str, level: str) -> None:
    assert study.finalist(f"kl=0,{factor}={level}")[factor] == level


@pytest.mark.parametrize("option", ["--tasks", "--seeds"])
def test_what_is_named_twice_is_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["recipe", "--out", str(tmp_path), option, "1", "1"])
    assert f"{option} names a value twice: 1 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--factors", "kl", "--train", "model.kl_coef=0"], "the study itself sets model.kl_coef"),
        (["--factors", "objective", "--train", "model.objective.sigma=2"], "the study itself sets model.objective"),
        (["--factors", "kl", "--finalists", "updates=16x512", "--train", "data.rounds=8"], "sets data.rounds"),
        (["--factors", "kl", "--train", "data.total_frames=8"], "the study itself sets data.total_frames"),
        (["--frames", "10000"], "--frames 10000: a run would not be evaluated, which it is every 20000 steps"),
        (["--final-frames", "10000"], "--final-frames 10000: a run would not be evaluated"),
        (["--factors", "decay", "network", "--runs", "6"], "--runs 6: network has 7 alternatives, each to be run"),
        (["--tasks", "rach-v3"], "--tasks rach-v3: unknown task 'rach-v3'"),
    ],
)
def test_what_makes_no_race_is_refused_before_it(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["recipe", "--out", str(tmp_path), *words])
    assert said in capsys.readouterr().err
    assert "data.rounds" not in study.settled(["kl"], [])


def test_an_option_with_which_another_begins_is_itself() -> None:
    options = argparse.Namespace(train=["model.policy=GaussianPolicy"])
    refuse_settled(options, "train", study.settled(["policy_lr"], []), study.settled(study.FACTORS, []))
    with pytest.raises(UserError, match=r"the study itself sets model\.policy;"):
        refuse_settled(options, "train", study.settled(["network"], []), study.settled(study.FACTORS, []))


@pytest.mark.parametrize(("stopped", "rounds", "finals"), [(6, 6, 0), (14, 14, 0), (18, 16, 2)])
def test_it_goes_on_where_it_was_stopped(
    stopped: int,
    rounds: int,
    finals: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what was made until then stands in the tables."""
    made = []

    class Forks:
        """Writes what a run would, but no second time."""

        def fit(self, folder: Path, options: list[str]) -> None:
            if not (folder / "curves.csv").exists():
                if len(made) == stopped:
                    raise UserError("the machine went down")
                made.append(folder)
                folder.mkdir(parents=True)
                success = 0.9 if "--model.kl_coef=0" in options else 0.1
                (folder / "curves.csv").write_text(f"frames,val/success,val/return\n1,{success},1\n")

        def end(self, patience: float = 0.0) -> None:
            pass

    monkeypatch.setattr("gipo.commands.studies.recipe.study.Forks", Forks)
    args = ["recipe", "--tasks", "Pendulum-v1", "Acrobot-v1", "--seeds", "0", "--rounds", "2", "--runs", "8"]
    args += ["--factors", "kl", "decay", "--processes", "1", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        cli.main(args)
    assert len(made) == stopped
    table = "final.csv" if finals else "rounds.csv"
    assert f"all others are made and stand in {tmp_path / table}; the first: the machine went down" in (
        capsys.readouterr().err
    )
    assert len((tmp_path / "rounds.csv").read_text().splitlines()) == 1 + rounds
    assert not finals or len((tmp_path / "final.csv").read_text().splitlines()) == 1 + finals
    made.append(Path())  # it may go on
    cli.main(args)
    made.remove(Path())
    assert len(set(made)) == len(made) == 2 * 8 + 2 * 2
    text = (tmp_path / "recipe.md").read_text()
    assert "| winner | 2 | 0.900 | +0.800 ± 0.000" in text
    assert (tmp_path / "rounds.csv").read_text().count("\n") == 17


def test_what_an_earlier_call_has_made_takes_none_of_the_time_that_is_left(tmp_path: Path) -> None:
    class Forks:
        """Writes what a run would."""

        def fit(self, folder: Path, options: list[str]) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "curves.csv").write_text("frames,val/success,val/return\n1,0.5,1\n")
            (folder / "fit.done.json").write_text("[]")

        def end(self, patience: float = 0.0) -> None:
            pass

    race = Race({"kl": {"0.1": ()}}, 16, [], 2, Forks())  # type: ignore[arg-type]
    trials = {tmp_path / str(seed): ({"round": 1}, Trial("a", seed, {"kl": "0.1"})) for seed in range(5)}
    for count, there in ((2, 0), (5, 2)):
        with tqdm(total=5, smoothing=0) as bar:
            race.table(dict(islice(trials.items(), count)), tmp_path / "rounds.csv", bar, [])
            assert (bar.n, bar.initial) == (count, there)


def test_runs_are_those_of_gipo_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gipo.commands.studies.recipe.study.Forks", InThisProcess)
    options = argparse.Namespace(
        tasks=["reach-v3"], seeds=[1], rounds=1, runs=2, frames=32, final_frames=32, processes=1, factors=["decay"],
        finalists=["decay=to 0.1"], out=tmp_path, train=[
            "data.frames_per_iteration=16", "data.rounds=1", "data.batch=16", "data.capacity=64",
            "data.collector.num_envs=2", "data.evaluation.num_envs=1", "data.evaluation.episodes=1",
            "data.evaluation.max_steps=4", "trainer.check_val_every_n_epoch=1",
        ],
    )  # fmt: skip
    study.run(options)
    assert not list(tmp_path.rglob("*.ckpt"))
    assert {path.parent.name for path in tmp_path.glob("final/*/*")} >= {"default", "decay=to 0.1"}
    for path in tmp_path.glob("round-1/*/config.yaml"):  # as a version with another default would have made the rounds
        path.write_text(path.read_text().replace("policy_lr: 0.0003", "policy_lr: 0.0004"))
    with pytest.raises(OtherVersion, match=r"final/.* has model\.policy_lr 0\.0003, .*round-1/.* has 0\.0004"):
        study.run(options)
