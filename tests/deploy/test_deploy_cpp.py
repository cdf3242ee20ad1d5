"""The C++ controller, built and run where ONNX Runtime's headers are."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from deploy.export.artifact import export
from deploy.runtime.manifest import MAX_ROUNDING, SCHEMA
from gipo.common.transition import MAX_CONTROL_RATE
from gipo.vla.observations import VLASpaces
from gipo.vla.policies import VLATokenPolicy
from tests.deploy.builders import save
from tests.deploy.forge import ARMED, STATIC, edited, put_key

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"
HEADER = "onnxruntime_cxx_api.h"
PLACES = ("include", "include/onnxruntime", "include/onnxruntime/core/session")


def found_headers():
    roots = [os.environ.get("ONNXRUNTIME_ROOT", "/nowhere"), "/usr", "/usr/local", "/opt/onnxruntime"]
    return next((Path(root) for root in roots for place in PLACES if (Path(root) / place / HEADER).exists()), None)


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    missing = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if missing or found_headers() is None:
        reason = f"{missing[0]} is not installed" if missing else f"{HEADER} not found; set ONNXRUNTIME_ROOT"
        pytest.skip(f"the C++ example was not built here: {reason}")
    root, build = tmp_path_factory.mktemp("onnxruntime"), tmp_path_factory.mktemp("build")
    (root / "include").symlink_to(found_headers() / "include")
    # The library of the Python wheel: any newer one runs what was compiled against older headers.
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    (root / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(library)
    configure = ["cmake", "-S", EXAMPLE, "-B", build, f"-DONNXRUNTIME_ROOT={root}", "-DCMAKE_BUILD_TYPE=Debug"]
    done = subprocess.run(configure, capture_output=True, text=True)
    if "nlohmann_json" in done.stderr:
        pytest.skip("the C++ example was not built here: nlohmann-json is not installed; set CMAKE_PREFIX_PATH")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["cmake", "--build", build], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr
    return build / "controller"


def first_action_alone(model):
    """The graph's action is its first number."""
    (made,) = (node for node in model.graph.node if "action" in node.output)
    made.output[[*made.output].index("action")] = "whole"
    for name, index in (("first", 0), ("end", 1), ("axis", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([index]), name))
    model.graph.node.append(helper.make_node("Slice", ["whole", "first", "end", "axis"], ["action"]))
    (output,) = (output for output in model.graph.output if output.name == "action")
    output.type.tensor_type.shape.dim[1].dim_value = 1


def run(controller, file, *arguments):
    return subprocess.run([controller, file, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["token-separate", "gaussian-separate", "gaussian-separate-int8"])
def test_replays_the_golden_vectors_and_keeps_its_rate(controller, exported, kind):
    done = run(controller, exported(kind)["file"], 40)
    assert (done.returncode, done.stderr) == (0, "")
    first, *steps, last, end = done.stdout.splitlines()
    assert end == "stop"
    assert first == "16 golden vectors replayed"
    assert len(steps) == 40
    actions = [float(word) for line in steps for word in line.split(" action ")[1].split(" log_prob ")[0].split()]
    assert len(actions) == 160
    assert max(map(abs, actions)) <= 1
    assert 40 < float(last.split(" steps, ")[1].split(" Hz")[0]) <= 80.5


STUB = """
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>
#include <thread>
#include <random>
#include <vector>
namespace gipo {
struct Golden { Golden at(const char*) const { return {}; } std::size_t size() const { return 0; } };
struct Decision { std::vector<float> action{0.5F}, log_prob{0.0F}; };
struct Policy {
  explicit Policy(const std::string& path) : kind(path) {}
  Golden manifest() const { return {}; }
  double rate_hz() const { return 200; }
  std::size_t observation_size() const { return 1; }
  Decision act(const std::vector<float>&, std::mt19937_64&) {
    if (++steps <= 3 || kind == "policy") return {};
    if (kind == "fails") throw std::runtime_error("no decision");
    if (kind == "nan") return {{NAN}, {0.0F}};
    if (kind == "nan log-prob") return {{0.5F}, {NAN}};
    if (steps == 4) std::this_thread::sleep_for(std::chrono::milliseconds(kind == "hangs" ? 400 : 100));
    return {};
  }
  std::string kind;
  int steps = 0;
};
}
"""


@pytest.fixture(scope="module")
def looping(tmp_path_factory):
    """The controller's loop on a policy that needs no ONNX Runtime."""
    if shutil.which("c++") is None:
        pytest.skip("c++ is not installed")
    folder = tmp_path_factory.mktemp("loop")
    shutil.copy(EXAMPLE / "main.cpp", folder)
    (folder / "policy.hpp").write_text(STUB)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wno-unused-result", "-Werror"]
    subprocess.run(["c++", *flags, folder / "main.cpp", "-o", folder / "controller"], check=True)
    return folder / "controller"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_robot(looping, number):
    with subprocess.Popen([looping, "policy", "100000"], stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        process.stdout.readline()
        process.send_signal(number)
        lines = process.communicate(timeout=20)[0].splitlines()
    assert (process.returncode, lines[-1]) == (128 + number, "stop")


def test_however_it_ends_the_robot_is_stopped(looping):
    done = run(looping, "policy", 5)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "stop")
    done = run(looping, "fails", 5)
    assert (done.returncode, done.stderr) == (2, "controller: error: no decision\n")
    assert done.stdout.splitlines()[-1] == "stop"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("nan", "the policy decides what is no number"),
        ("nan log-prob", "the policy decides what is no number"),
        ("hangs", "a decision took more than 250 ms"),
    ],
)
def test_what_no_robot_should_do_is_not_sent(looping, policy, said):
    done = run(looping, policy, 50)
    assert (done.returncode, done.stderr) == (2, f"controller: error: {said}\n")
    _, *steps, end = done.stdout.splitlines()
    assert (len(steps), end) == (3, "stop")


@pytest.mark.parametrize("steps", ["1O0", "-3", "", "3000000000"])
def test_steps_that_are_no_number_are_not_none(looping, steps):
    done = run(looping, "policy", steps)
    assert (done.returncode, done.stderr) == (2, f"controller: error: {steps} is no whole number up to 2147483647\n")


def test_ticks_that_were_missed_are_skipped(looping):
    began = time.monotonic()
    done = run(looping, "late", 40)
    seconds = time.monotonic() - began
    assert done.returncode == 0
    assert seconds > 0.29, "40 steps at 200 Hz, and 100 ms in which there was none: no burst made up for it"


def test_it_ends_and_stops_the_robot_when_nobody_reads(looping):
    with subprocess.Popen([looping, "policy", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"controller: error: nobody reads what is printed\n"
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("name", "known"), [("Schema", SCHEMA), ("MostHz", MAX_CONTROL_RATE), ("MostRounding", MAX_ROUNDING)]
)
def test_its_numbers_are_those_of_the_manifest(name, known):
    """Also where it cannot be built."""
    (written,) = re.findall(rf"k{name} = (\S+);", (EXAMPLE / "policy.hpp").read_text())
    assert float(written) == known


def test_refuses_a_policy_that_sees(controller, tmp_path):
    policy = VLATokenPolicy(VLASpaces((3, 8, 8), 4, (-1.0,), (1.0,), chunk=2), bins=4).eval()
    file = tmp_path / "policy.onnx"
    export(save(policy, tmp_path / "p.ckpt", interface=None), file, rate=20.0, observations=20)
    done = run(controller, file, 5)
    assert done.returncode == 2
    assert "sees a camera" in done.stderr


def test_a_seed_reproduces_the_actions(controller, small):
    first, second, other = (run(controller, small["file"], 5, seed).stdout.splitlines()[1:-2] for seed in (1, 1, 2))
    assert first == second != other


def test_refuses_what_the_golden_vectors_refuse(controller, small, tmp_path):
    file = tmp_path / "policy.onnx"
    for name in ("wrong golden token", "normaliser changed everywhere", "wrong golden log-prob"):
        file.write_bytes(ARMED[name][0](small["file"].read_bytes()))
        done = run(controller, file, 5)
        assert done.returncode == 2
        assert "controller: error: golden vector" in done.stderr
    for key, value in (("control_rate_hz", 0), ("control_rate_hz", -50.0), ("rounding", 1.0)):
        file.write_bytes(put_key(key, value)(small["file"].read_bytes()))
        done = run(controller, file, 5)
        assert done.returncode == 2
        assert f"controller: error: the manifest's {key} is " in done.stderr
    file.write_bytes(b"nothing")
    assert run(controller, file, 5).returncode == 2


def test_no_file_crashes_it(controller, small, tmp_path):
    """What it does not refuse, `gipo-deploy check` does; the digest alone tells some from what was exported."""
    file, whole = tmp_path / "policy.onnx", small["file"].read_bytes()
    for name, (forge, _) in {**STATIC, **ARMED}.items():
        if "bomb" in name:
            continue
        file.write_bytes(forge(whole))
        done = subprocess.run([controller, file, "3"], capture_output=True, timeout=60)
        refused = done.stderr.startswith(b"controller: error: ")
        assert (done.returncode, refused) in ((0, False), (2, True)), (name, done.stderr)


def test_outputs_that_are_too_small_are_not_read_past_their_end(controller, small, tmp_path):
    file = tmp_path / "policy.onnx"
    file.write_bytes(edited(first_action_alone)(small["file"].read_bytes()))
    done = run(controller, file, 5)
    assert (done.returncode, done.stderr) == (
        2, "controller: error: the graph does not give one number for each action of the manifest\n"
    )  # fmt: skip
