"""`python -m benchmarks.peers`: one line a run, a table of them, and errors that say what to do."""

import importlib.util
import json

import pytest

from benchmarks.peers import __main__ as command
from benchmarks.training.marks import Mark
from benchmarks.training.process_tree import Usage

MARKS = [Mark("iteration", 5.0, 10_000), Mark("iteration", 6.0, 11_000), Mark("iteration", 7.0, 12_000)]
MARKS += [Mark("pause", 7.0, 12_000), Mark("resume", 8.0, 12_000, 0.95)]


@pytest.fixture
def started(monkeypatch):
    words: list[list[str]] = []

    def watched(command, cwd, log, environment):
        words.append(list(command))
        if "fit" in command:
            (run := log.parent / "run").mkdir()
            (run / "config.yaml").write_text("data: {simulator: envpool}")
        return Usage(0.0, [0.0, 8.0], [1 << 20, 2 << 20], [0.0, 8.0])

    monkeypatch.setattr(command, "watched", watched)
    monkeypatch.setattr(command, "read", lambda file: MARKS)
    monkeypatch.setattr(command.os, "sched_setaffinity", lambda *_: None)
    return words


def test_peers_take_turns_and_every_run_is_a_line(started, tmp_path, capsys) -> None:
    file = tmp_path / "peers.jsonl"
    arguments = ["--peers", "gipo", "ppo", "--seeds", "3", "4", "--steps", "12000", "--output", str(file)]
    command.main([*arguments, "--", "--data.collector.workers=0"])
    assert capsys.readouterr().out == file.read_text()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["peer"], line["seed"]) for line in lines] == [("gipo", 3), ("ppo", 3), ("gipo", 4), ("ppo", 4)]
    ours, theirs = lines[:2]
    assert (ours["steps_to"], ours["seconds_to"], ours["steps_per_s"], ours["peak_mib"]) == (12_000, 12.0, 1000.0, 2.0)
    assert ours["options"] == ["--data.collector.workers=0"]
    assert theirs["options"] == []
    assert (ours["simulator"], theirs["simulator"]) == ("envpool", "python")
    assert {"fit", "--seed_everything=3", "--data.total_frames=12000", "--data.collector.workers=0"} <= {*started[0]}
    assert started[1][1:7] == ["-m", "benchmarks.peers.rival_run", "ppo", "reach-v3", "3", "12000"]


def test_runs_become_a_table_of_medians(tmp_path, capsys) -> None:
    run = {"peer": "ppo", "task": "reach-v3", "simulator": "python", "options": []}
    run |= {"steps_per_s": 1500.0, "startup_s": 9.5, "processor_s_per_1000_steps": 0.6, "peak_mib": 700.0}
    ends = [(10_000, 7.0), (None, None), (30_000, 21.0)]
    runs = [{**run, "steps_to": steps, "seconds_to": seconds} for steps, seconds in ends]
    runs += [{**run, "peer": "sac", "steps_to": None, "seconds_to": None}]
    (tmp_path / "peers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in runs))
    command.main(["--table", str(tmp_path / "peers.jsonl")])
    *_, ppo, sac = capsys.readouterr().out.splitlines()
    assert ppo == "| reach-v3 | ppo | python | 2 of 3 | 30 000 | 21 | 1 500 | 0.6 | 9.5 | 700 |"
    assert sac == "| reach-v3 | sac | python | 0 of 1 | – | – | 1 500 | 0.6 | 9.5 | 700 |"


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        command.main(["--peers", "gipo", "sbx_sac"])
    assert end.value.code == 2
    assert (
        "sbx_sac needs sbx-rl, which is not installed: pip install -c constraints.txt '.[peers]'"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "sacc"], "--peers has no 'sacc'; nearest: sac"),
        (["--table", "nowhere"], "--table=nowhere: No such file"),
        (["--table", "words"], "--table=words is not what --output wrote: Expecting value"),
        (["--table", "number"], "--table=number is not what --output wrote: line 1 is no object"),
        (["--table", "other"], "--table=other is not what --output wrote: line 1 lacks options, peak_mib"),
        (["--cores", "0"], "'0' is no whole number from 1 to"),
        (["--steps", "0"], "'0' is no whole number from 1 to"),
        (["--seeds", "-1"], "'-1' is no whole number from 0 to"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, said, tmp_path, monkeypatch, capsys) -> None:
    for name, text in {"words": "of no run", "number": "1", "other": '{"peer": "gipo", "task": "reach-v3"}'}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_run_that_is_too_short_to_be_timed_says_so_in_a_line(started, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(command, "read", lambda file: MARKS[:1])
    with pytest.raises(SystemExit, match="2"):
        command.main(["--peers", "gipo", "--steps", "1000", "--output", str(tmp_path / "peers.jsonl")])
    assert "too short to be timed; give it more steps" in capsys.readouterr().err


def test_help_says_what_the_peers_are(capsys) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = capsys.readouterr().out
    for peer, what in command.PEERS.items():
        assert peer in said
        assert what in said
