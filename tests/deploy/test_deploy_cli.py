"""The command line: what it prints, one line of error, exit codes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.bench import Latency, eager_decision
from deploy.cli import main
from deploy.runtime.compare import MOST, difference, rows_that_fit
from deploy.runtime.identity import policy_id
from deploy.runtime.layout import Layout, Vision
from gipo.common.errors import UserError
from tests.deploy.forge import golden
from tests.needs import needs_torch


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_check_says_each_check_on_its_line(small, capsys):
    code, out, err = run(capsys, "check", small["file"], "--require-id", small["loaded"].policy_id)
    assert (code, err) == (0, "")
    names = [line.split()[1] for line in out.splitlines()]
    assert names == [
        "file", "identity", "structure", "digest", "opset", "operators", "weights", "manifest", "inputs", "outputs",
        "normaliser", "runtime", "golden",
    ]  # fmt: skip
    assert all(line.startswith("  ok  ") for line in out.splitlines())


def test_check_stops_at_the_first_failure_with_one_line(small, tmp_path, capsys):
    file = tmp_path / "damaged.onnx"
    data = bytearray(small["file"].read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    code, out, err = run(capsys, "check", file)
    assert code == 2
    assert err.startswith("gipo-deploy: error: ")
    assert len(err.splitlines()) == 1
    assert "golden" not in out


def test_a_required_id_is_required_by_every_command(small, capsys):
    for command in ("check", "info", "bench"):
        code, _, err = run(capsys, command, small["file"], "--require-id", "0" * 64)
        assert code == 2
        assert "not the one required" in err


def test_info_is_a_table_and_the_manifest(exported, capsys):
    file = exported("gaussian-separate-int8")["file"]
    code, out, _ = run(capsys, "info", file)
    assert code == 0
    for expected in ("80 Hz, 12.5 ms a step", "gripper", "sensor.38", "reach-v3", "int8 against the float policy"):
        assert expected in out
    code, out, _ = run(capsys, "info", file, "--json")
    assert json.loads(out)["action_names"] == ["x", "y", "z", "gripper"]


@needs_torch
def test_bench_compares_with_torch(small, capsys):
    code, out, _ = run(capsys, "bench", small["file"], "--count", "50")
    assert code == 0
    for expected in ("p99.9", "onnxruntime", "torch eager", "loads per second", "memory of one policy"):
        assert expected in out


def test_latencies_are_the_quantiles_that_are_named():
    shuffled = np.random.default_rng(0).permutation(1001)
    assert Latency.of(shuffled) == Latency(p50=500, p99=990, p999=999, worst=1000)


def test_a_policy_that_nobody_can_build_is_timed_alone(small):
    manifest = replace(small["loaded"].manifest, policy={"class_path": "gipo.policies.TokenPolicy", "network": "x"})
    assert eager_decision(SimpleNamespace(manifest=manifest)) is None


def test_diff_of_a_policy_with_itself_and_with_its_int8(exported, tmp_path, capsys):
    whole, int8 = (exported(kind)["file"] for kind in ("gaussian-separate", "gaussian-separate-int8"))
    code, out, _ = run(capsys, "diff", whole, whole)
    assert code == 0
    assert [line.split()[-2:] for line in out.splitlines()[2:]] == [["0", "0"]] * 4
    observations = tmp_path / "seen.npy"
    np.save(observations, np.random.default_rng(0).standard_normal((20, 39)))
    code, out, _ = run(capsys, "diff", whole, int8, "--observations", observations)
    assert code == 0
    assert out.startswith("20 observations")
    assert float(out.splitlines()[2].split()[-2]) > 0
    code, _, err = run(capsys, "diff", whole, int8, "--observations", observations, "--count", "5")
    assert code == 2
    assert "argument --count: not allowed with argument --observations" in err


def test_diff_refuses_other_robots_and_files_that_are_no_observations(exported, small, tmp_path, capsys):
    file = exported("gaussian-separate")["file"]
    code, _, err = run(capsys, "diff", file, small["file"])
    assert code == 2
    assert "differ in manifest.family" in err
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.zeros((3, 7)))
    for path, message in ((wrong, "finite numbers [B, 39]"), (file, "no .npy file")):
        code, _, err = run(capsys, "diff", file, file, "--observations", path)
        assert code == 2
        assert message in err


@pytest.mark.parametrize(
    "name",
    ["action_low", "action_high", "action_names", "action_units", "observation_names", "observation_units"],
)
def test_policies_of_other_names_units_or_bounds_are_not_compared(name, small):
    one = small["loaded"]
    value = getattr(one.manifest, name)
    changed = tuple(f"{each}'" if isinstance(each, str) else 3 * each - 1 for each in value)
    other = SimpleNamespace(manifest=replace(one.manifest, **{name: changed}))
    with pytest.raises(UserError, match=f"the artifacts differ in manifest.{name}"):
        difference(one, other, np.zeros((3, 5), np.float32))


def test_policies_of_another_rate_or_way_to_an_action_are_not_compared(small):
    one = small["loaded"]
    slow = SimpleNamespace(manifest=replace(one.manifest, control_rate_hz=5 * one.manifest.control_rate_hz))
    golden = one.manifest.golden
    moved = replace(golden, action=tuple(tuple(value / 2 for value in row) for row in golden.action))
    other = SimpleNamespace(manifest=replace(one.manifest, golden=moved))
    for second, said in ((slow, "the same action is another motion"), (other, "the other by a way of its own")):
        with pytest.raises(UserError, match=said):
            difference(one, second, np.zeros((3, 5), np.float32))


def test_of_large_images_fewer_observations_are_asked_about():
    layout = Layout(4, 2, Vision((3, 480, 640), 16, 1))
    assert rows_that_fit(1000, layout) * layout.row_size <= MOST < (rows_that_fit(1000, layout) + 1) * layout.row_size
    assert rows_that_fit(10, layout) == 10


@needs_torch
@pytest.mark.parametrize(("width", "built"), [(40, True), (100_000, False)])  # the latter would take 80 GB
def test_what_describes_a_network_larger_than_an_artifact_is_not_built_by_torch(small, width, built):
    described = small["loaded"].manifest.policy
    network = {**described["network"], "init_args": {**described["network"]["init_args"], "hidden": [width, width]}}
    loaded = SimpleNamespace(manifest=replace(small["loaded"].manifest, policy={**described, "network": network}))
    assert (eager_decision(loaded) is not None) == built


def test_observations_that_are_none_are_one_line(small, tmp_path, capsys):
    np.savez(tmp_path / "many.npz", a=np.zeros((3, 5)))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000, 5), }"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + bytes([len(header) + 1, 0]) + header + b"\n")
    (tmp_path / "empty.npy").touch()
    os.mkfifo(tmp_path / "pipe")
    np.save(tmp_path / "none.npy", np.zeros((0, 5)))
    np.save(tmp_path / "large.npy", np.full((3, 5), 1e39))
    for name, message in (
        ("none.npy", "is float64 (0, 5); it must be finite numbers [B, 5], B ≥ 1, of float32's range"),
        ("large.npy", "is float64 (3, 5); it must be finite numbers [B, 5], B ≥ 1, of float32's range"),
        ("many.npz", "is no .npy file of numbers"), ("objects.npy", "is no .npy file of numbers"),
        ("huge.npy", "is no .npy file of numbers"), ("empty.npy", "is no .npy file of numbers"),
        ("pipe", "is not a regular file"), (".", "is not a regular file"), ("none", "No such file"),
        ("x" * 300, "File name too long"),
    ):  # fmt: skip
        code, out, err = run(capsys, "diff", small["file"], small["file"], "--observations", tmp_path / name)
        assert (code, out, err.count("\n")) == (2, "", 1), name
        assert message in err


@needs_torch
def test_export_reports_parity(small, tmp_path, capsys):
    code, out, err = run(capsys, "export", small["checkpoint"], "--out", tmp_path / "p.onnx", "--rate", 50)
    assert (code, err) == (0, "")
    for expected in (small["loaded"].policy_id, "1014 observations", "|Δ log-prob|", "rounding"):
        assert expected in out
    code, _, err = run(capsys, "export", small["checkpoint"], "--out", tmp_path / "q.onnx")
    assert code == 2
    assert "--rate HZ" in err


def test_export_without_the_training_stack_says_what_is_missing(small, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "deploy.export.artifact", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = run(capsys, "export", small["checkpoint"], "--out", tmp_path / "p.onnx")
    assert code == 2
    assert "onnx is not installed; this command needs it: pip install '.[train]'" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["bench", "x.onnx", "--count", "0"], "argument --count: '0' is no whole number from 1 to 10000000"),
        (["bench", "x.onnx", "--threads", "1000000000"], "argument --threads: '1000000000' is no whole number"),
        (["export", "x.ckpt", "--out", "x.onnx", "--rate", "0"], "argument --rate: '0' is no number above 0"),
        (["export", "x.ckpt", "--out", "x.onnx", "--rate", "nan"], "argument --rate: 'nan' is no number above 0"),
        (["export", "x.ckpt", "--out", ""], "argument --out: it is empty"),
        (["info", "x.onnx", "--require-id", ""], "argument --require-id: it is empty"),
        (["check"], "the following arguments are required: file"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_usage_errors_are_one_line_and_exit_with_two(arguments, named, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("gipo-deploy: error: ")
    assert named in err


@needs_torch
def test_export_replaces_no_checkpoint(small, tmp_path, capsys):
    checkpoint = tmp_path / "mine.ckpt"
    checkpoint.write_bytes(before := b"of days")
    code, _, err = run(capsys, "export", str(checkpoint), "--out", str(checkpoint), "--rate", "80")
    assert code == 2
    assert "mine.ckpt is there, and a .ckpt file is not replaced by a .onnx; name another" in err
    assert checkpoint.read_bytes() == before


@needs_torch
def test_export_says_which_policy_it_replaced(small, tmp_path, capsys):
    out = tmp_path / "p.onnx"
    out.write_bytes(b"another")
    for said in (f"in place of       {policy_id(b'another')}, which was there", None):
        code, printed, err = run(capsys, "export", small["checkpoint"], "--out", out, "--rate", 50)
        assert (code, err) == (0, "")
        assert said in printed if said else "in place of" not in printed


@needs_torch
def test_export_writes_no_policy_past_the_history_of_its_place(small, tmp_path, capsys):
    place = tmp_path / "arm"
    place.mkdir()
    (place / "promotions.jsonl").touch()
    (place / "policy.onnx").write_bytes(before := b"promoted")
    (tmp_path / "link").symlink_to(place / "policy.onnx")
    for out in (place / "policy.onnx", tmp_path / "link"):
        code, _, err = run(capsys, "export", small["checkpoint"], "--out", out, "--rate", 50)
        assert (code, err.count("\n")) == (2, 1)
        assert f"--out {out} is what a robot runs, by promotions.jsonl beside it; name another file, and put it" in err
        assert f"gipo-robot promote FILE --to {place}\n" in err
        assert (place / "policy.onnx").read_bytes() == before
    (place / "policy.onnx").unlink()  # nor where it is missing, which rollback mends
    assert run(capsys, "export", small["checkpoint"], "--out", place / "policy.onnx", "--rate", 50)[0] == 2


def test_check_judges_the_whole_file_though_nobody_reads(small, tmp_path):
    """As in `gipo-deploy check FILE | grep -q identity`, whose first line is enough for the reader."""
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(golden("action", 0, 1e-3)(small["file"].read_bytes()))
    for path, code in ((small["file"], 0), (damaged, 2)):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([sys.executable, "-m", "deploy.cli", "check", path], stdout=writing, check=False)
        os.close(writing)
        assert done.returncode == code


def test_importing_the_robot_side_loads_no_training_stack():
    runtime = sorted(path.stem for path in Path("deploy/runtime").glob("*.py"))
    assert "policy" in runtime
    script = "import sys, deploy.bench, deploy.cli, deploy.policy, deploy.report\n" + "\n".join(
        f"import deploy.runtime.{module}" for module in runtime
    )
    script += "\nassert not {'torch', 'onnx', 'lightning'} & set(sys.modules)"
    script += "\nassert {m.split('.')[1] for m in sys.modules if m.startswith('gipo.')} == {'common'}"
    subprocess.run([sys.executable, "-c", script], check=True)
