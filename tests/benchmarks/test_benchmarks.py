"""Each benchmark runs in a small size. Times are not judged here; agreement and bytes are."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import kl_divergence

from benchmarks import __main__ as command
from benchmarks import (
    bins,
    collect,
    ingest,
    libero,
    loop,
    memory,
    metaworld_steps,
    scale,
    update,
    update_default,
    update_gpu,
)
from benchmarks.turns import Side
from benchmarks.vision import models, sight, size
from datamodules.collect.rollouts import InProcessRollouts
from tests.needs import needs_envpool


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@needs_envpool
def test_collect_reports_a_ratio_for_every_collector(monkeypatch):
    monkeypatch.setattr(collect, "WORKERS", 1)  # processes take seconds to start
    figures = collect.run(turns=1, num_envs=2, steps=4)
    here = ("in_process", "in_process_authors", "native", "native_two_threads")
    for name in (*here, "two_workers_sync", "two_workers_async"):
        assert figures[f"{name}_ratio"] > 0
        assert figures[f"{name}_steps_per_s"] > 0


@needs_envpool
def test_metaworld_steps_compares_each_task_with_itself(monkeypatch):
    monkeypatch.setattr(metaworld_steps, "TASKS", ("coffee-push-v3", "sweep-v3"))
    figures = metaworld_steps.run(turns=1, steps=10)
    for ratios in figures["tasks"].values():
        assert set(ratios) == {"own_ms", "hastened", "lean", "native"}
        assert all(ratio > 0 for ratio in ratios.values())
    hastened = [ratios["hastened"] for ratios in figures["tasks"].values()]
    assert figures["ok"] == (min(hastened) >= metaworld_steps.BOUND)


def test_scale_reports_every_side_by_one_worker_process(monkeypatch):
    class Here(InProcessRollouts):  # processes and actors take seconds to start; their own tests start them
        def __init__(self, *arguments):
            super().__init__(arguments[0])

    for source in ("WorkerRollouts", "RayRollouts"):
        monkeypatch.setattr(scale, source, Here)
    figures = scale.run(turns=1, num_envs=2, steps=4)
    for name in ("processes_1", "processes_2", "ray_1", "ray_2"):
        assert figures[f"{name}_ratio"] > 0
        assert figures[f"{name}_steps_per_s"] > 0
    assert figures["processes_1_ratio"] == 1
    assert figures["ok"] == (figures["ray_1_ratio"] >= scale.BOUND)
    # 39 observations twice and 4 dimensions: actions, latents, log-probs
    assert 300 < figures["bytes_per_step"] < 600
    assert figures["bytes_of_weights"] > 4 * 187_000


def test_sight_ingests_reads_and_learns(monkeypatch):
    monkeypatch.setattr(sight, "apart", sight.learned)  # a process takes seconds to start
    figures = sight.run(steps=40, pixels=32, rounds=1, batch=8)
    assert figures["decisions"] == 10
    for name in ("second_start_ratio", "read_samples_per_s", "learned_samples_per_s"):
        assert figures[name] > 0
    assert figures["bytes_a_frame"]["h264"] < figures["bytes_a_frame"]["png"]


def test_vla_size_counts_what_learns_and_what_does_not(tmp_path):
    figures = size.measured(models.save(models.smolvlm(layers=1, width=192, tower=1, pixels=128), tmp_path))
    # 2 embeddings of 49 280 × 192 in what is frozen, and a window of 256 × 192 in what learns
    assert figures["frozen_millions"] > 2 * 49280 * 192 / 1e6
    assert figures["learned_millions"] > 256 * 192 / 1e6
    assert 0 < figures["saved_gib"] < figures["computed_gib"] < figures["peak_gib"]
    assert figures["update_s"] > 0


@pytest.mark.campaign  # which starts LIBERO twice
def test_libero_collect_reports_its_ratios():
    figures = libero.run(turns=1, num_envs=1, steps=2)
    for name in ("ratio", "ratio_to_shipped", "collect_steps_per_s", "bare_steps_per_s", "as_shipped_steps_per_s"):
        assert figures[name] > 0


def test_both_sides_of_update_do_the_same_updates_and_what_bfloat16_changes_is_stated(monkeypatch):
    monkeypatch.setattr(update, "default_precision", lambda accelerator: "bf16-mixed")
    figures = update.run(slices=1, rounds=1)
    assert figures["max_parameter_difference"] <= update.AGREEMENT
    assert figures["ratio"] > 0
    assert figures["bf16_ratio"] > 0
    assert update.AGREEMENT < figures["bf16_max_parameter_difference"] < 0.06  # 20 updates by up to 3e-3
    assert 0 < figures["bf16_difference_to_distance_learned"] < 0.25


def test_update_default_compares_with_256_bins():
    figures = update_default.run(turns=1, iterations=1, rounds=1, batch=16)
    assert figures["ms_per_update"] > 0
    assert figures["ms_per_update_of_256_bins"] > 0
    assert figures["ok"] == (figures["processor_ratio"] >= update_default.BOUND)


def test_a_different_update_is_noticed(monkeypatch):
    monkeypatch.setattr(update, "kl_divergence", lambda behaviour, policy: 1.01 * kl_divergence(behaviour, policy))
    with pytest.raises(AssertionError, match="not the same updates"):
        update.run(slices=1, rounds=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_update_gpu_says_that_there_is_none():
    figures = update_gpu.run()
    assert "no CUDA device" in figures["skipped"]
    assert figures["ok"]


def test_update_gpu_measures_iterations_of_its_module():
    assert update_gpu.updates_per_s("cpu", "cpu", iterations=2, rounds=2, batch=16) > 0


def test_update_gpu_does_not_count_the_first_iteration(monkeypatch):
    clock = iter([0.0, 100.0, 100.0, 101.0, 101.0, 103.0])
    monkeypatch.setattr("benchmarks.turns.time.perf_counter", lambda: next(clock))
    timer = update_gpu._Timer(rounds=8)
    timer.on_train_start(None, None)
    for _ in range(2):
        timer.on_train_batch_end(None, None)
    assert timer.side.rate == 8.0


def test_a_transition_takes_at_most_600_bytes():
    figures = memory.run(capacity=64)
    assert figures["ok"]
    assert figures["bytes_per_transition"] <= 600
    # 4 × 256 half-precision logits
    assert figures["with_params_bytes_per_transition"] == figures["bytes_per_transition"] + 2048


def test_ingest_reports_rates_and_keeps_its_memory():
    figures = ingest.run(logs=2, steps=1000, memory_steps=3000, repeats=1)
    assert figures["steps_per_s"] > 0
    assert figures["full_audit_steps_per_s"] > 0
    assert figures["second_start_ratio"] > 1
    assert figures["within_memory_limit"]


def test_loop_accounts_for_whole_iterations():
    figures = loop.run(4, ("--data.frames_per_iteration=64", "--data.collector.num_envs=4", "--data.rounds=2"))
    assert figures["iterations"] == 2
    assert 0 < figures["overhead_share"] < 1
    assert figures["data_s_per_iteration"] > 0
    assert figures["optimisation_s_per_iteration"] > 0


def test_loop_counts_what_no_span_covers():
    spans = [loop.Span("data", t, t + 6) for t in (0, 10, 20, 30)]
    spans += [loop.Span("optimisation", t + 6, t + 9) for t in (0, 10, 20)] + [loop.Span("evaluation", 29, 29.5)]
    figures = loop.figures(spans)
    assert figures["iterations"] == 2
    assert figures["overhead_share"] == pytest.approx((1 + 0.5) / (10 + 9.5))
    assert not figures["ok"]


def test_ratio_pairs_the_slices_of_a_turn_and_forgets_the_first():
    mine, base = Side(), Side()
    mine._rates = [(1, 1), (20, 8), (3, 9), (8, 4)]
    base._rates = [(100, 1), (10, 4), (1, 3), (2, 2)]
    assert mine.rate == 8
    assert mine.ratio(base) == 3
    assert mine.processor_ratio(base) == 2


def test_command_writes_a_line_per_benchmark_and_fails_when_a_bound_is_missed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "BENCHMARKS", {name: f"{__name__}:{name}" for name in ("good", "bad")})
    monkeypatch.setitem(
        sys.modules, __name__, SimpleNamespace(good=lambda: {"x": 1 / 3, "ok": True}, bad=lambda: {"ok": False})
    )
    file = tmp_path / "figures.jsonl"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--output", str(file)])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 1
    assert capsys.readouterr().out == file.read_text()
    good, bad = map(json.loads, file.read_text().splitlines())
    assert (good["benchmark"], good["x"], good["ok"]) == ("good", 0.3333, True)
    assert (bad["benchmark"], bad["ok"]) == ("bad", False)


@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_command_finds_every_benchmark(name):
    assert callable(pkgutil.resolve_name(command.BENCHMARKS[name]))


def test_command_loads_no_benchmark_that_is_not_run():
    code = "import sys, benchmarks.__main__; print([name for name in sys.modules if name.startswith('benchmarks.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['benchmarks.__main__']"


def test_command_refuses_an_unknown_benchmark(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "colect"])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert "collect" in capsys.readouterr().err


def test_bins_that_share_no_run_with_the_most_are_named():
    _, few, most = bins.summary({("a", 0, 33): (0.3, 0.4), ("b", 0, 256): (0.2, 0.3)})
    assert few == "  33      0   none of its 1 runs is of a task and seed that 256 bins have"
    assert most.startswith(" 256      1  0.200   0.300")


def test_the_race_of_bins_makes_only_the_runs_that_are_missing(monkeypatch, tmp_path, capsys):
    made = []

    def gipo(args):
        options = dict(arg.removeprefix("--").split("=") for arg in args[1:])
        made.append((options["data.task"], options["seed_everything"], options["model.policy.bins"]))
        shift = 0.1 if options["model.policy.bins"] == "33" else 0.0
        rows = ["frames,train/success", "100,", f"200,{0.5 + shift}", f"300,{0.7 + shift}"]
        Path(options["trainer.default_root_dir"], "curves.csv").write_text("\n".join([*rows, ""]))

    monkeypatch.setattr(bins, "gipo", gipo)
    table = ["--table", str(tmp_path / "bins.csv"), "--steps", "300", "--bins", "33", "256"]
    bins.main([*table, "--tasks", "a", "--seeds", "0"])
    bins.main([*table, "--tasks", "a", "b", "--seeds", "0"])
    assert made == [("a", "0", "33"), ("a", "0", "256"), ("b", "0", "33"), ("b", "0", "256")]
    fewest, most = capsys.readouterr().out.splitlines()[-2:]
    assert fewest.split() == ["33", "2", "0.467", "0.800", "+0.067", "±", "0.000"]
    assert most.split() == ["256", "2", "0.400", "0.700", "+0.000", "±", "0.000"]
