"""Two checkouts are compared in turns, each by the interpreter of its own environment."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import fit
from benchmarks.training.marks import Mark
from benchmarks.training.process_tree import Usage


def test_ratios_are_medians_of_turns(monkeypatch, tmp_path, capsys) -> None:
    other = tmp_path / ".venv" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.touch()
    rates = {Path(sys.executable): iter([400.0, 300.0, 900.0]), other: iter([100.0, 100.0, 100.0])}
    seen = []

    def one_run(python, steps, options):
        seen.append((python, steps, tuple(options)))
        rate = next(rates[python])
        return {
            "steps_per_s": rate,
            "processor_s_per_1000_steps": 100 / rate,
            "peak_mib": 900.0,
            "simulator": python.name,
        }

    monkeypatch.setattr(fit, "one_run", one_run)
    fit.main(["--against", str(tmp_path), "--steps", "5000", "--", "--data.simulator=python"])
    found = json.loads(capsys.readouterr().out)
    assert found["steps_per_s_ratio"] == 4.0
    assert found["processor_time_ratio"] == pytest.approx(4.0)
    assert (found["this_steps_per_s"], found["against_steps_per_s"]) == (400.0, 100.0)
    assert (found["this_simulator"], found["against_simulator"]) == (Path(sys.executable).name, "python")
    assert seen == 3 * [(Path(sys.executable), 5000, ("--data.simulator=python",)), (other, 5000, ())]


def test_a_run_finds_the_clock_in_its_working_folder(monkeypatch) -> None:
    def watched(command, cwd, log):
        assert command[:4] == ["python", "-m", "gipo.cli", "fit"]
        assert "--trainer.callbacks+=timed.clock.Clock" in command
        (cwd / "run").mkdir()
        (cwd / "run" / "config.yaml").write_text("data: {task: reach-v3}")  # of a version without a choice
        assert {"clock.py", "marks.py"} <= {path.name for path in (cwd / "timed").iterdir()}
        return Usage(0.0, [0.0, 4.0], [3 << 20, 2 << 20], [0.0, 4.0])

    monkeypatch.setattr(fit, "watched", watched)
    marks = [Mark("iteration", 2.0, 100), Mark("iteration", 4.0, 200)]
    monkeypatch.setattr(fit, "read", lambda file: marks)
    found = fit.one_run(Path("python"), 200)
    assert (found["steps_per_s"], found["processor_s_per_1000_steps"], found["peak_mib"]) == (50.0, 20.0, 3.0)
    assert found["simulator"] == "python"


@pytest.mark.parametrize(("peak", "ok"), [(1000.0, True), (1300.0, False)])
def test_memory_has_a_bound(monkeypatch, peak, ok) -> None:
    monkeypatch.setattr(fit, "one_run", lambda python, steps: {"peak_mib": peak})
    assert fit.run()["ok"] is ok


def test_a_checkout_without_an_environment_is_named(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        fit.main(["--against", str(tmp_path)])
    assert end.value.code == 2
    assert "it has no .venv/bin/python" in capsys.readouterr().err
