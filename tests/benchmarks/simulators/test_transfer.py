"""A policy that is trained in one simulator is scored in both, once."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.simulators import transfer
from gipo.cli import main as gipo

pytest.importorskip("envpool")
SMALL = (
    "--data.frames_per_iteration=16", "--data.rounds=1", "--data.batch=16", "--data.collector.num_envs=2",
    "--data.collector.workers=0", "--data.evaluation.num_envs=1", "--data.evaluation.episodes=1",
    "--data.evaluation.max_steps=4", "--trainer.check_val_every_n_epoch=1",
)  # fmt: skip


@pytest.mark.campaign
def test_each_is_scored_in_both_and_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def small(args: Sequence[str]) -> None:
        trained.append([arg for arg in args if "simulator" in arg])
        gipo([*args, *SMALL])

    monkeypatch.setattr(transfer, "gipo", small)
    for _ in range(2):
        transfer.main(["reach-v3", "--frames", "16", "--episodes", "1", "--out", str(tmp_path)])
    assert trained == [["--data.simulator=envpool"], ["--data.simulator=python"]]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert lines[:2] == lines[2:]
    assert [line["trained_in"] for line in lines[:2]] == ["envpool", "python"]
    # Nothing succeeds after one update: 0 of 1, with Wilson's interval
    assert lines[0]["success_in_envpool"] == lines[0]["success_in_python"] == [0.0, 0.0, 0.793]
    assert lines[0]["within"] is True

    # one that was cut leaves its best checkpoint so far, which is not that of the run
    (tmp_path / "reach-v3-python-16" / "fit.done.json").unlink()
    transfer.main(["reach-v3", "--frames", "16", "--episodes", "1", "--out", str(tmp_path)])
    assert trained[2:] == [["--data.simulator=python"]]

    def begun(args: Sequence[str]) -> None:
        raise InterruptedError("trained anew")

    monkeypatch.setattr(transfer, "gipo", begun)
    with pytest.raises(InterruptedError, match="trained anew"):  # a run of another length is another run
        transfer.main(["reach-v3", "--frames", "32", "--episodes", "1", "--out", str(tmp_path)])
