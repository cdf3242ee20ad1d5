"""OnnxPolicy: reproducible, batched, deterministic; and it refuses what a policy must not see."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import onnxruntime
import orjson
import pytest

from deploy.bench import eager_decision
from deploy.export.artifact import export
from deploy.runtime.check import check_file
from deploy.runtime.distributions import kl, log_softmax, mode
from deploy.runtime.golden import compare, tolerances
from deploy.runtime.identity import file_id, policy_id
from deploy.runtime.inference import ending, new_session
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError

ROW = np.array([1.0, 0.5, -2.0, 3.0, 8.0], np.float32)


def same(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("action", "latent", "log_prob"))


def test_a_seed_reproduces_every_action(small):
    policy = small["loaded"]
    first, second = (np.random.default_rng(4) for _ in range(2))
    assert all(same(policy.act(ROW, first), policy.act(ROW, second)) for _ in range(50))


def test_nobody_is_told_what_is_run(small, tmp_path):
    """ONNX Runtime from 1.29 on keeps a device id in the home folder, and events that wait to be sent."""
    quiet = {"CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    code = f"from deploy.runtime.policy import OnnxPolicy; OnnxPolicy.load({str(small['file'])!r})"
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)}, check=True)
    assert not [*tmp_path.rglob("*onnxruntime*")]


@pytest.mark.parametrize("kind", ["token-separate", "gaussian-separate", "gaussian-separate-int8"])
def test_a_batch_draws_what_single_calls_draw(exported, kind):
    policy = OnnxPolicy.load(exported(kind)["file"])
    rows = np.random.default_rng(0).standard_normal((9, 39))
    batch = policy.act(rows, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    for i, row in enumerate(rows):
        single = policy.act(row, rng)
        assert np.abs(single.action - batch.action[i]).max() < 1e-5
        assert np.abs(single.log_prob - batch.log_prob[i]).max() < 1e-4


def test_shapes_and_dtypes(small):
    policy, rng = small["loaded"], np.random.default_rng(0)
    one, many = policy.act(ROW, rng), policy.act(np.stack([ROW] * 3), rng)
    assert one.action.shape == one.latent.shape == one.log_prob.shape == (2,)
    assert one.params.shape == (2, 16)
    assert many.action.shape == (3, 2)
    assert many.params.shape == (3, 2, 16)
    assert (one.action.dtype, one.latent.dtype, one.log_prob.dtype) == (np.float32, np.int64, np.float32)


def test_deterministic_is_the_mode_and_draws_nothing(small):
    policy, rng = small["loaded"], np.random.default_rng(0)
    before = rng.bit_generator.state
    decision = policy.act(ROW, rng, deterministic=True)
    assert rng.bit_generator.state == before
    assert np.array_equal(decision.latent, decision.params.argmax(-1))
    assert decision.log_prob == pytest.approx(
        np.log(np.exp(decision.params[range(2), decision.latent]) / np.exp(decision.params).sum(-1)), abs=1e-6
    )
    assert same(decision, policy.act(ROW, None, deterministic=True))


@pytest.mark.parametrize("family", ["gaussian", "token"])
def test_the_mode_is_what_a_log_takes(family):
    params = np.arange(8, dtype=np.float32).reshape(4, 2)
    latent = mode(family, params)
    assert orjson.loads(orjson.dumps(latent, option=orjson.OPT_SERIALIZE_NUMPY)) == latent.tolist()


def test_log_probs_are_of_any_logits_and_in_double_precision():
    assert log_softmax(np.array([1000.0, 0.0, -1000.0], np.float32)).tolist() == [0.0, -1000.0, -2000.0]
    logits = np.array([0.1, 0.2, 0.7], np.float32)
    expected = logits.astype(float) - np.log(np.exp(logits.astype(float)).sum())
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-14)


def test_divergences_by_hand():
    first, second = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert kl("token", first, second) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    # N(0, 1) from N(1, 2²): log 2 + (1 + 1)/(2·4) − ½
    one, other = np.array([[0.0, 0.0]]), np.array([[1.0, np.log(2)]])
    assert kl("gaussian", one, other) == pytest.approx(np.log(2) + 2 / 8 - 0.5)


def test_a_golden_vector_that_is_no_number_does_not_come_out(small):
    manifest = small["loaded"].manifest
    outputs = {name: np.array(getattr(manifest.golden, name)) for name in tolerances(manifest)}
    compare(manifest, outputs)
    outputs["action"][1, 0] = np.nan
    with pytest.raises(UserError, match=r"golden vector 1: action of .* is nan here"):
        compare(manifest, outputs)


@pytest.mark.parametrize(
    ("family", "precision", "latent", "action", "log_prob"),
    [  # half the range of the action is 2, the bins are 5; rounding 1e-5 allows tenfold, a log-prob a hundredfold
        ("token", "float32", 0.0, 2e-6, 1e-3),
        ("token", "int8", 1.0, 2e-6 + 1.0, 0.1),
        ("gaussian", "float32", 1e-4, 2e-4, 1e-3),
        ("gaussian", "int8", 0.03, 0.06, 0.1),
    ],
)
def test_what_another_machine_may_differ_by(family, precision, latent, action, log_prob):
    manifest = SimpleNamespace(
        family=family, precision=precision, rounding=1e-5, layout=SimpleNamespace(decision_size=2), action_size=1,
        action_low=(-1.0,), action_high=(3.0,), parameters_per_dimension=5,
    )  # fmt: skip
    allowed = {"action": action, "deterministic_action": action, "latent": latent, "log_prob": log_prob}
    assert {name: pytest.approx([each] * 2) for name, each in allowed.items()} == tolerances(manifest)


def test_numbers_of_a_chunk_may_differ_by_what_each_dimension_spans():
    """Two actions of two dimensions, whose half ranges are 2 and 0.005, in the order of the graph."""
    manifest = SimpleNamespace(
        family="gaussian", precision="float32", rounding=0.0, layout=SimpleNamespace(decision_size=4), action_size=2,
        action_low=(-1.0, 0.0), action_high=(3.0, 0.01), parameters_per_dimension=2,
    )  # fmt: skip
    allowed = tolerances(manifest)
    assert allowed["action"] == pytest.approx([2e-5, 5e-8, 2e-5, 5e-8])
    assert allowed["latent"] == pytest.approx([1e-5] * 4), "though the weights round less"
    assert allowed["log_prob"] == pytest.approx([1e-4] * 4)


def test_long_batches_run_in_pieces(small):
    policy = small["loaded"]
    rows = np.tile(ROW, (10_000, 1))
    noise = policy.noise((10_000,), np.random.default_rng(0))
    found = policy.evaluate(rows, noise)
    assert found["params"].shape == (10_000, 2, 16)
    assert np.array_equal(found["latent"][-7:], policy.evaluate(rows[-7:], noise[-7:])["latent"])


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (ROW[:4], "must be"),
        (np.zeros((2, 2, 5)), "must be"),
        (np.zeros((0, 5)), "must be"),
        (np.array([1, 2, np.nan, 4, 5]), "observation.2"),
        (np.array([1, 2, 3, np.inf, 5]), "observation.3"),
        (np.array([1, 2, 3, 4, 1e39]), "observation.4"),
    ],
)
def test_refuses_observations_that_are_none(small, observation, message):
    with pytest.raises(ValueError, match=message):
        small["loaded"].act(observation, np.random.default_rng(0))


def test_refuses_wrong_noise_missing_generator_and_tokens_that_do_not_exist(small):
    policy = small["loaded"]
    with pytest.raises(ValueError, match="noise has shape"):
        policy.evaluate(ROW[None], np.zeros((1, 3)))
    with pytest.raises(ValueError, match="deterministic=True"):
        policy.act(ROW, None)
    for latent in ([0, 16], [-1, 0], [0.5, 1]):
        with pytest.raises(UserError, match="0 to 15"):
            policy.log_prob_of(ROW, np.array(latent))
    with pytest.raises(ValueError, match="latent has shape"):
        policy.log_prob_of(ROW, np.zeros(3))
    batch = np.stack([ROW, ROW, ROW])
    assert policy.log_prob_of(batch, np.zeros((3, 2), int)).shape == (3, 2)
    for given in ((2, 3), (6,), (1, 3, 2)):  # as many numbers, of which each would be another's
        with pytest.raises(ValueError, match=r"latent has shape .*; it must be \(3, 2\)"):
            policy.log_prob_of(batch, np.zeros(given, int))
    with pytest.raises(ValueError, match=r"the action has shape \(1, 2\); it must be \(2,\)"):
        policy.judged(policy.act(ROW, None, deterministic=True), np.zeros((1, 2)))


def test_a_decision_that_is_not_finite_is_refused(small):
    policy = OnnxPolicy(check_file(small["file"]))
    answers = policy._outputs
    policy._outputs = lambda names, *rest: [
        np.full_like(value, np.nan) if name == "params" else value
        for name, value in zip(names, answers(names, *rest), strict=True)
    ]
    for deterministic in (False, True):  # the action itself is that of a token, and finite
        with pytest.raises(UserError, match="the policy's params is not finite: the observation is far from what it"):
            policy.act(ROW, np.random.default_rng(1), deterministic)


@pytest.mark.parametrize("odd", [ROW.astype(complex), np.ma.masked_array(ROW, mask=True)])
def test_an_observation_is_plain_numbers(small, odd):
    with pytest.raises(ValueError, match="masked or complex; give plain numbers"):
        small["loaded"].act(odd, None, deterministic=True)


def test_what_is_too_large_is_said_before_it_is_asked_and_to_whoever_loads_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.runtime.check.MAX_BYTES", 5_000)
    with pytest.raises(UserError, match=r"the policy has [\d,]+ bytes, more than the 5,000 of an artifact; train"):
        OnnxPolicy.from_bytes(small["file"].read_bytes())
    monkeypatch.setattr("deploy.export.parity.probe", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(UserError, match="more than the 5,000 of an artifact"):
        export(small["checkpoint"], tmp_path / "new.onnx", rate=50.0)
    assert not (tmp_path / "new.onnx").exists()


def test_where_torch_is_without_onnx_the_runtime_is_timed_alone(small, monkeypatch):
    assert eager_decision(small["loaded"]) is not None
    monkeypatch.setitem(sys.modules, "deploy.export.eager", None)
    assert eager_decision(small["loaded"]) is None


@pytest.mark.parametrize("threads", [1, 3])
def test_a_policy_has_the_threads_it_is_given_which_wait_without_spinning(small, threads):
    options = new_session(small["file"].read_bytes(), threads).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_golden_vectors_have_their_time(small, monkeypatch):
    artifact = check_file(small["file"])
    monkeypatch.setattr("deploy.runtime.policy.GOLDEN_SECONDS", 0.05)
    monkeypatch.setattr(OnnxPolicy, "_outputs", slowed(OnnxPolicy._outputs))
    with pytest.raises(UserError, match=r"its golden vectors took more than 0\.05 s"):
        OnnxPolicy(artifact)


def test_a_time_that_ends_with_the_last_run_ends_none_after_it():
    options = onnxruntime.RunOptions()
    with ending(options, 0.0, "it"):
        time.sleep(0.1)
        assert options.terminate
    assert not options.terminate


def slowed(outputs):
    def run(*args):
        time.sleep(0.02)
        return outputs(*args)

    return run


def test_required_ids(small, tmp_path):
    file, identity = small["file"], small["loaded"].policy_id
    listed = tmp_path / "allowed.txt"
    listed.write_text(f"# floor 2\n{'0' * 64}  old.onnx\n{identity}  small.onnx\n")
    quoted = tmp_path / "quoted.txt"  # what sha256sum writes of a name with a backslash, begun by an editor's mark
    quoted.write_text(f"\ufeff\\{identity}  back\\\\slash.onnx\n", encoding="utf-8")
    capitals = tmp_path / "capitals.txt"  # as other tools than sha256sum write
    capitals.write_text(f"{identity.upper()}\n")
    for require in (identity, identity.upper(), str(listed), str(quoted), str(capitals)):
        assert OnnxPolicy.load(file, require_id=require).policy_id == identity
    with pytest.raises(UserError, match="not the one required"):
        OnnxPolicy.load(file, require_id="f" * 64)
    torn = tmp_path / "torn.txt"  # whose last line did not get onto the disk
    torn.write_text(f"{identity}  small.onnx\n{identity[:40]}")
    listed.write_text("")
    for require, message in ((str(listed), "must list"), (str(torn), "must list"), ("abc", "neither a policy id")):
        with pytest.raises(UserError, match=message):
            OnnxPolicy.load(file, require_id=require)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 7])
def test_a_file_has_the_id_of_its_bytes_whatever_its_size(tmp_path, size):
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "policy.onnx").write_bytes(data)
    assert file_id(tmp_path / "policy.onnx") == policy_id(data) == hashlib.sha256(data).hexdigest()


def test_threads_share_a_policy(small):
    policy, wanted = small["loaded"], small["loaded"].act(ROW, np.random.default_rng(2))
    answers = []
    workers = [
        threading.Thread(target=lambda: answers.extend(policy.act(ROW, np.random.default_rng(2)) for _ in range(100)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(answers) == 400
    assert all(same(answer, wanted) for answer in answers)
