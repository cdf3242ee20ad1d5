"""Logs beside collection, by the command line: a run that crashed goes on exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gipo.cli import main
from tests.crash import crash
from tests.offline import Robot
from tests.test_offline import last, refused, run

pytestmark = pytest.mark.usefixtures("no_plot")
Args = Callable[..., list[str]]
OF_LOGS = ("data__min_ess", "data__ingest__policies")


def options(robot: Robot, **more: object) -> dict[str, object]:
    return {
        "data__task": "Tiny-v0", "data__logs": json.dumps([str(path) for path in robot.logs]), "data__min_ess": 0,
        "data__ingest__policies": robot.folder, "data__logs_share": 0.25, "data__total_frames": 5 * 32,
        "model__init_from": robot.checkpoint, "model__policy": None, "model__policy__bins": None,
        "model__policy__network": None, "model__policy__network__hidden": None, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    "more", [{"data__refresh_every": 2}, {"data__advantages": "stored"}], ids=["recomputed", "stored"]
)
def test_a_crashed_run_resumes_bit_for_bit(more: dict[str, object], robot: Robot, tiny: Args, tmp_path: Path) -> None:
    chosen = options(robot, checkpoint__every=4, **more)
    whole = run(tiny("whole", **chosen), tmp_path / "whole")
    crash(tiny("again", **chosen | {"checkpoint__every": 100}), 4)
    assert run(tiny("again", ckpt_path=last(tmp_path / "again"), **chosen), tmp_path / "again") == whole


def test_resuming_needs_the_same_logs(
    robot: Robot, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = options(robot, data__total_frames=32)
    main(tiny("run", **chosen))
    assert (tmp_path / "run" / "staleness.csv").exists()
    recorded = torch.load(last(tmp_path / "run"), weights_only=True)["gipo"]
    assert (recorded["task"], len(recorded["logs"])) == ("Tiny-v0", 2)
    others = chosen | {"data__logs": json.dumps([str(robot.logs[1])])}
    without = {name: value for name, value in chosen.items() if "logs" not in name and name not in OF_LOGS}
    for given in (others, without):
        args = tiny("run", ckpt_path=last(tmp_path / "run"), **given)
        assert "trained on other logs than data.logs" in refused(capsys, args, tmp_path / "run")


@pytest.mark.parametrize("frozen", [True, False])
def test_the_moments_of_a_start_are_kept_where_asked(frozen: bool, tiny: Args, tmp_path: Path) -> None:
    def count(name: str) -> float:
        state = torch.load(last(tmp_path / name), weights_only=True)["state_dict"]
        return float(state["policy.normaliser.count"])

    main(tiny("start", data__task="Tiny-v0", data__total_frames=32, data__freeze_moments=True))
    assert count("start") == 32 + 32  # a policy that starts from nothing looks around, and has none to keep
    later = {"data__total_frames": 64, "data__freeze_moments": frozen, "model__init_from": last(tmp_path / "start")}
    main(tiny("later", data__task="Tiny-v0", **later))
    assert count("later") == (64 if frozen else 128)
