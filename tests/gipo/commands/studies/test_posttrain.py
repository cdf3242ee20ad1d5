"""What the comparison of objectives says of its rows, and that it runs end to end."""

import csv
from pathlib import Path
from typing import Any

import pytest

from gipo.callbacks.plots import MARKERS, draw_intervals, pyplot
from gipo.commands.studies import posttrain
from gipo.commands.studies.cli import build_parser, main
from gipo.commands.studies.pipeline.robots import RobotScore
from gipo.commands.studies.pipeline.stages import Stages

GAINS = {
    (1, "GIPO"): [0.1, 0.2, 0.3, 0.4, 0.9], (1, "PPOClip"): [0.0, 0.1, 0.1, 0.2, 0.3],
    (3, "GIPO"): [0.0, 0.0, 0.1, 0.1, 0.1], (3, "PPOClip"): [0.2, 0.2, 0.2, 0.2, 0.2],
}  # fmt: skip


def rows(gains: dict[tuple[int, str], list[float]]) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "back": back, "objective": name, "before": 0.1, "after": 0.1 + gain, "gain": gain}
        for (back, name), values in gains.items()
        for seed, gain in enumerate(values)
    ]


def test_the_summary_by_hand() -> None:
    table = {(row["back"], row["objective"]): row for row in posttrain.summarise(rows(GAINS))}
    assert list(table) == list(GAINS)
    # of five runs the smallest and the largest are left out
    assert table[1, "GIPO"]["gain"] == pytest.approx(0.3)
    assert table[3, "GIPO"]["gain"] == pytest.approx(0.2 / 3)
    assert all(row["seeds"] == 5 for row in table.values())
    same = table[3, "PPOClip"]
    assert (same["low"], same["high"]) == pytest.approx((0.2, 0.2))
    wide = table[1, "GIPO"]
    assert wide["low"] < wide["gain"] < wide["high"]


def test_the_report_says_where_the_first_does_not_win() -> None:
    found = rows(GAINS)
    text = posttrain.report(posttrain.summarise(found), found)
    assert "| logs from | GIPO | PPOClip |" in text
    assert "| 1 back | +0.30 [" in text
    assert "- 1 back: GIPO gains most." in text
    assert "- 3 back: GIPO does not win; more gained by PPOClip." in text
    # means over ages: .05 .1 .2 .25 .5 against .1 .15 .15 .2 .25, 25 pairs
    wins = 0 + 0.5 + (3 + 0.5) + (4 + 0.5) + 5
    assert f"a run of GIPO gains more than one of PPOClip, mean over ages: {wins / 25:.2f} [" in text


def test_pairs_of_one_seed_by_hand() -> None:
    # 1 back .1 .1 .2 .2 .6 more, 3 back -.2 -.2 -.1 -.1 -.1, in the mean -.05 -.05 .05 .05 .25; t(4) = 2.776445
    found = posttrain.paired_gains(rows(GAINS), "GIPO", "PPOClip")
    for interval, mean, squares in zip(found, (0.24, -0.14, 0.05), (0.172, 0.012, 0.06), strict=True):
        half = 2.776445 * (squares / 4 / 5) ** 0.5
        assert interval == pytest.approx((mean, mean - half, mean + half), abs=1e-6)
    text = posttrain.report(posttrain.summarise(rows(GAINS)), rows(GAINS))
    assert "| GIPO's gain minus that of | 1 back | 3 back | mean |" in text
    assert "| PPOClip | +0.24 [-0.02, +0.50] | -0.14 [-0.21, -0.07] | +0.05 [-0.10, +0.20] |" in text


def test_a_tie_is_no_win() -> None:
    # from .66 to .96 and from .62 to .92 differ in their last bit alone
    for ours, theirs in (([0.1, 0.2], [0.2, 0.1]), ([0.96 - 0.66] * 2, [0.92 - 0.62] * 2)):
        found = rows({(1, "GIPO"): ours, (1, "SAPO"): theirs})
        text = posttrain.report(posttrain.summarise(found), found)
        assert "- 1 back: GIPO does not win; as much gained by SAPO." in text
        assert "gains more than one of SAPO, mean over ages: 0.50 [" in text


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    posttrain.plot(posttrain.summarise(rows(GAINS)), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_no_two_lines_of_the_figure_look_alike() -> None:
    figure, axes = pyplot().subplots()
    row = {"gain": 0.1, "low": 0.0, "high": 0.2}
    draw_intervals(axes, {str(number): [row] for number in range(12)}, "gain")
    looks = {(line.get_color(), line.get_marker()) for line in axes.get_lines() if line.get_marker() in MARKERS}
    pyplot().close(figure)
    assert len(looks) == 12


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--frames", "85000"], "must be a multiple of 10000"),
        (["--frames", "20000", "--back", "1", "2"], "--back 2 reaches before the first checkpoint"),
        (["--back", "0"], "'0' is no whole number from 1 to"),
        (["--gap", "mass=1"], "mass"),
        (["--objectives", "GIPO", "gipo.objectives.GIPO"], "the tables call two of these the same"),
        (["--train", "data.total_frames=10"], "--train data.total_frames=10"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_runs(
    extra: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["posttrain", "--out", str(tmp_path), *extra])
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


class NoStages(Stages):
    """Notes with which options it is asked to train, and trains nothing."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[list[str]] = []

    def train(self, *args: Any) -> Path:
        return self.post_train(*args)

    def post_train(self, *args: Any) -> Path:
        self.asked.append(args[-1])
        return Path("checkpoints")

    def export(self, *args: Any) -> Path:
        return Path("policy.onnx")

    def drive(self, *args: Any) -> RobotScore:
        return RobotScore((True, False), (1.0, 0.0))


def test_policies_that_a_loop_trained_with_options_are_asked_for_with_them() -> None:
    stages, options = NoStages(), build_parser("posttrain").parse_args(["posttrain", "--train", "data.batch=64"])
    assert posttrain.prepare(stages, options, seed=22) == 0.5
    assert stages.asked == [["--data.batch=64"]]


def test_a_rival_has_settings_of_its_own() -> None:
    stages = NoStages()
    options = build_parser("posttrain").parse_args(["posttrain", "--post", "data.rounds=2", "--gap", "late"])
    assert set(posttrain.RIVALS) < set(options.objectives)
    for name in ("GIPO:sigma=0.5", "IQL"):
        row = posttrain.post_train(stages, options, 22, 3, name, before=0.1)
        assert (row["objective"], row["after"]) == (name, 0.5)
    assert stages.asked[0][1:] == ["--model.objective=GIPO", "--model.objective.sigma=0.5", "--data.rounds=2"]
    assert stages.asked[1] == ["--config=post_train_iql.yaml", "--data.rounds=2"]


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_the_comparison_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([
        "posttrain", "--out", str(tmp_path / "out"), "--loops", str(tmp_path / "loops"), "--seeds", "3", "--back", "1",
        "--objectives", "GIPO", "PPOClip", "--frames", "20000", "--logged", "3", "--episodes", "2", "--processes", "1",
        "--post", "data.iterations=2", "data.rounds=2", "data.batch=32", "data.min_ess=0", "data.ingest.workers=1",
    ])  # fmt: skip
    with open(tmp_path / "out" / "runs.csv") as file:
        found = list(csv.DictReader(file))
    assert [(row["seed"], row["back"], row["objective"]) for row in found] == [
        ("3", "1", "GIPO"),
        ("3", "1", "PPOClip"),
    ]
    for row in found:
        assert float(row["gain"]) == float(row["after"]) - float(row["before"])
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "posttrain.csv", "posttrain.png", "posttrain.md", "runs.csv",
    }  # fmt: skip
    assert "Probability that a run of GIPO gains more than one of PPOClip" in capsys.readouterr().out
