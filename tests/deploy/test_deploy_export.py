"""Exporting: the same file twice, whole or not at all, never what torch and ONNX Runtime disagree on."""

import json
import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import deploy.export.artifact
from deploy.cli import main
from deploy.export.artifact import export
from deploy.export.checkpoint_policy import CheckpointPolicy
from deploy.runtime.manifest import Manifest
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, Spaces, TokenPolicy
from tests.deploy.builders import INTERFACE, make_policy, save, small_policy, small_robot
from tests.deploy.forge import manifest


def test_the_manifest_says_what_the_checkpoint_says(exported):
    kit = exported("token-separate")
    m = OnnxPolicy.load(kit["file"]).manifest
    assert (m.family, m.policy_version, m.frames, m.task, m.parent) == ("token", 7, 1000, "reach-v3", None)
    assert list(m.observation_names) == INTERFACE["observation_names"]
    assert (m.action_units, m.control_rate_hz) == (("1",) * 4, 80.0)
    assert m.policy == json.loads(json.dumps(kit["policy"].description()))
    assert m.rounding == kit["done"].parity.rounding > 0
    normaliser = kit["policy"].normaliser
    assert np.array_equal(np.float32(m.normaliser.mean), normaliser.mean.float().numpy())
    assert np.array_equal(np.float32(m.normaliser.scale), normaliser.scale().float().numpy())
    assert m.normaliser.bound == 10


def test_the_manifest_names_the_checkpoint_the_parent_and_the_configuration(small, tmp_path):
    assert small["loaded"].manifest.checkpoint is None  # the checkpoint of this fixture has no id
    names = {"id": "a" * 64, "parent": "b" * 64, "config_hash": "c" * 64}
    checkpoint = save(small_policy(), tmp_path / "p.ckpt", interface=None, **names)
    m = export(checkpoint, tmp_path / "p.onnx", rate=50.0).manifest
    assert (m.checkpoint, m.parent, m.config_hash) == tuple(names.values())


def test_an_artifact_from_before_checkpoints_had_ids_still_loads(small, tmp_path):
    def older(raw):
        raw.pop("checkpoint")
        raw["schema"] = 1

    (tmp_path / "old.onnx").write_bytes(manifest(older)(small["file"].read_bytes()))
    loaded = OnnxPolicy.load(tmp_path / "old.onnx").manifest
    assert (loaded.schema, loaded.checkpoint) == (1, None)
    assert Manifest.from_json(loaded.to_json()) == loaded


def test_the_manifest_survives_json_exactly(exported):
    m = OnnxPolicy.load(exported("gaussian-separate")["file"]).manifest
    assert Manifest.from_json(m.to_json()) == m
    assert Manifest.from_json(m.to_json()).to_json() == m.to_json()


def test_the_graph_is_plain_and_holds_nothing_of_the_machine_that_wrote_it(exported):
    model = onnx.load(exported("token-shared")["file"])
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert os.getcwd().encode() not in model.SerializeToString()
    # What only the critic needs stays at home.
    assert not any("critic" in tensor.name for tensor in model.graph.initializer)


def test_the_same_checkpoint_gives_the_same_policy_id(small, tmp_path):
    assert export(small["checkpoint"], tmp_path / "again.onnx", rate=50.0).policy_id == small["loaded"].policy_id
    assert (tmp_path / "again.onnx").read_bytes() == small["file"].read_bytes()


def test_generic_names_where_the_checkpoint_has_none(small):
    m = small["loaded"].manifest
    assert m.observation_names == tuple(f"observation.{i}" for i in range(5))
    assert (m.action_names, m.action_units, m.control_rate_hz) == (("action.0", "action.1"), ("unspecified",) * 2, 50.0)


def test_a_robot_says_what_the_checkpoint_does_not(small, tmp_path):
    robot = small_robot()
    (tmp_path / "arm.json").write_text(robot.to_json())
    spec, out = ("--spec", f"{tmp_path}/arm.json"), ("--out", f"{tmp_path}/named.onnx")
    asked = ["export", str(small["checkpoint"]), *spec, *out]
    assert (main(asked), main([*asked, "--rate", "50"])) == (0, 2)  # two who say the rate
    robot.check(OnnxPolicy.load(tmp_path / "named.onnx").manifest)
    robot.check(CheckpointPolicy(small["checkpoint"], robot=robot).manifest)
    with pytest.raises(UserError, match=r"made for another robot.*`gipo-deploy export --spec FILE`"):
        robot.check(small["loaded"].manifest)
    said = {"observation_names": ["v", "w", "x", "y", "z"], "control_rate_hz": 20.0}
    partly = save(small_policy(), tmp_path / "partly.ckpt", interface=said)
    refused(partly, tmp_path, r"another robot than 'arm': observation_names\[0\]: the robot has 'a', the policy 'v'; "
            r"control rate: the robot has 50\.0 Hz, the policy 20\.0 Hz$", robot=robot)  # fmt: skip
    other = replace(robot, action_low=(-9.0, -9.0))
    refused(small["checkpoint"], tmp_path, "action_low: the robot has", robot=other, observations=9)
    with pytest.raises(UserError, match="action_low: the robot has"):
        CheckpointPolicy(small["checkpoint"], robot=other)
    one = {name: values[:1] for name, values in vars(robot).items() if name.startswith("action_")}
    fewer = replace(robot, **one)
    refused(small["checkpoint"], tmp_path, "has 5 observations and 1 actions; the policy has 5 and 2", robot=fewer)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_policy_without_normaliser_or_with_one_that_saw_nothing(tmp_path, fresh):
    policy = GaussianPolicy(
        Spaces(3, (-10.0,), (1000.0,)),
        squash=False,
        network=lambda i, o: SeparateNetworks(i, o, (16,)),
        normalise=fresh,
    )
    export(save(policy, tmp_path / "p.ckpt", interface=None), tmp_path / "p.onnx", rate=5)
    m = OnnxPolicy.load(tmp_path / "p.onnx").manifest
    assert (m.normaliser is not None) == fresh


class Wide(TokenPolicy):
    """A policy of one's own: derived, with another network width."""


def test_a_derived_policy_is_exported_as_its_family(tmp_path):
    policy = Wide(Spaces(3, (-1.0,), (1.0,)), bins=7, network=lambda i, o: SeparateNetworks(i, o, (16,)))
    done = export(save(policy, tmp_path / "p.ckpt", interface=None), tmp_path / "p.onnx", rate=5)
    assert done.manifest.family == "token"


class Undecided(TokenPolicy):
    """Its graph depends on the values of the observation, which no export can follow."""

    def params(self, observation):
        return super().params(observation if observation.sum() > 0 else -observation)


def test_a_policy_that_cannot_be_exported_is_refused(tmp_path):
    policy = Undecided(Spaces(3, (-1.0,), (1.0,)), bins=7, network=lambda i, o: SeparateNetworks(i, o, (16,)))
    checkpoint = save(policy, tmp_path / "p.ckpt", interface=None)
    refused(checkpoint, tmp_path, "Undecided cannot be exported to ONNX", rate=5)


class Tangent(TokenPolicy):
    """Its graph has an operator that ONNX knows and a robot refuses."""

    def _constrain(self, outputs):
        return torch.tan(outputs)


def test_a_policy_that_every_robot_would_refuse_is_not_written(tmp_path):
    policy = Tangent(Spaces(3, (-1.0,), (1.0,)), bins=7, network=lambda i, o: SeparateNetworks(i, o, (16,)))
    checkpoint = save(policy, tmp_path / "p.ckpt", interface=None)
    refused(checkpoint, tmp_path, "operator 'Tan', which a policy may not use", rate=5)


def refused(checkpoint, tmp_path, message, **arguments):
    out = tmp_path / "out" / "policy.onnx"
    with pytest.raises(UserError, match=message):
        export(checkpoint, out, **arguments)
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_nothing_is_written_when_the_runtime_disagrees(small, tmp_path, monkeypatch):
    honest = deploy.export.artifact.run

    def off_by_little(*arguments):
        action, *others = honest(*arguments)
        return [action + np.float32(1e-4), *others]

    monkeypatch.setattr(deploy.export.artifact, "run", off_by_little)
    refused(small["checkpoint"], tmp_path, "away from torch's", rate=50.0)


def test_nothing_is_written_when_a_token_differs(small, tmp_path, monkeypatch):
    honest = deploy.export.artifact.run

    def another_token(*arguments):
        action, deterministic, latent, *others = honest(*arguments)
        latent[3, 0] ^= 1
        return [action, deterministic, latent, *others]

    monkeypatch.setattr(deploy.export.artifact, "run", another_token)
    refused(small["checkpoint"], tmp_path, "samples 1 tokens", rate=50.0)


def test_refuses_unusable_checkpoints(small, tmp_path):
    refused(tmp_path / "none.ckpt", tmp_path, "no checkpoint at", rate=50.0)
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(small["checkpoint"].read_bytes()[:1000])
    refused(damaged, tmp_path, "truncated, damaged", rate=50.0)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    refused(foreign, tmp_path, "no 'gipo' entry", rate=50.0)
    policy = make_policy("token-separate")
    with torch.no_grad():
        policy.network.actor[-1].weight *= 1e5
    refused(save(policy, tmp_path / "huge.ckpt"), tmp_path, "float32 is .* away from float64")


def test_refuses_a_missing_or_contradicting_rate_and_wrong_names(small, tmp_path):
    refused(small["checkpoint"], tmp_path, "--rate HZ")
    refused(small["checkpoint"], tmp_path, "control rate is -5", rate=-5.0)
    checkpoint = save(small_policy(), tmp_path / "p.ckpt", interface={"control_rate_hz": 20.0})
    refused(checkpoint, tmp_path, "trained at 20.0 Hz", rate=50.0)
    names = save(small_policy(), tmp_path / "q.ckpt", interface={"observation_names": ["a"], "control_rate_hz": 20.0})
    refused(names, tmp_path, "lists 1 names")
    refused(small["checkpoint"], tmp_path, "must be dynamic", rate=50.0, quantize="static")


def test_a_failed_write_leaves_the_old_file(small, tmp_path, monkeypatch):
    out = tmp_path / "policy.onnx"
    out.write_bytes(b"old")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gipo.common.files.os.replace", fails)
    with pytest.raises(UserError, match="No space left"):
        export(small["checkpoint"], out, rate=50.0)
    assert out.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["policy.onnx"]


def test_int8_is_its_own_policy_and_says_how_far_it_moved(exported):
    whole, int8 = (exported(kind) for kind in ("gaussian-separate", "gaussian-separate-int8"))
    assert int8["done"].size < 0.5 * whole["done"].size
    report = int8["done"].manifest.quantisation
    assert 0 < report["kl_mean"] < 0.05
    assert 0 < report["action_difference_mean"] < 0.05
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(int8["file"]).graph.initializer]
    largest = [np.abs(array.astype(int)).max() for array in weights if array.dtype == np.int8 and array.ndim == 2]
    assert largest, "int8 weights"
    assert max(largest) <= 64, "of whole int8 weights, processors without VNNI saturate the sums"
    said: dict[str, str] = {}
    policy, rng = OnnxPolicy.load(int8["file"], report=said.__setitem__), np.random.default_rng(0)
    assert said["golden"].endswith("largest difference 0.0e+00"), "golden vectors are its own answers"
    observation = rng.standard_normal((50, 39))
    decision = policy.act(observation, rng)
    own = policy.log_prob_of(observation, decision.latent)
    floats = OnnxPolicy.load(whole["file"]).log_prob_of(observation, decision.latent)
    assert np.abs(own - decision.log_prob).max() < 1e-5
    assert np.abs(floats - decision.log_prob).max() > 1e-4
