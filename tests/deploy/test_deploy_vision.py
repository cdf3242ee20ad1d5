"""Artifacts of policies that see: named inputs, chunks out, and the same answers as torch."""

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from deploy.bench import eager_decision
from deploy.cli import main
from deploy.export.artifact import export
from deploy.export.parity import Probe, compare
from deploy.runtime.acting import OUTPUTS
from deploy.runtime.compare import difference, typical_observations
from deploy.runtime.inference import rows_at_once
from deploy.runtime.layout import Layout, Vision
from deploy.runtime.manifest import SCHEMA, Manifest
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.policies import Policy
from gipo.vla.observations import VLASpaces, encode_instructions
from gipo.vla.policies import VLAGaussianPolicy, VLATokenPolicy
from gipo.vla.tiny import TinyVLANetworks
from tests.deploy.builders import save
from tests.deploy.test_deploy_serving import asking, serving

SPACES = VLASpaces((3, 12, 10), 4, (-1.0, -2.0), (1.0, 2.0), chunk=3, instruction_bytes=16)
Kit = dict[str, Any]


def make_vla(family: type[Policy], **options: Any) -> Policy:
    torch.manual_seed(1)
    network = lambda spaces, outputs: TinyVLANetworks(spaces, outputs, 24)  # noqa: E731
    policy = family(SPACES, network=network, **options)  # type: ignore[call-arg]
    with torch.no_grad():
        policy.network.actor.weight *= 40.0  # type: ignore[operator]
    assert policy.normaliser is not None
    policy.normaliser.update(torch.randn(500, 4) * torch.tensor([0.1, 1.0, 2.0, 5.0]) + 1)
    policy.version.fill_(7)
    return policy.eval()


@pytest.fixture(scope="module", params=["token", "gaussian"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("vla")
    families = {"token": (VLATokenPolicy, {"bins": 9}), "gaussian": (VLAGaussianPolicy, {})}
    family, options = families[request.param]
    policy = make_vla(family, **options)
    checkpoint, file = save(policy, folder / "a.ckpt", interface=None), folder / "a.onnx"
    done = export(checkpoint, file, rate=20.0, observations=100)
    return {"policy": policy, "checkpoint": checkpoint, "file": file, "done": done, "loaded": OnnxPolicy.load(file)}


def camera(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def test_the_graph_has_named_inputs_and_gives_chunks(kit: Kit) -> None:
    session = onnxruntime.InferenceSession(kit["file"])
    assert {value.name: (value.type, value.shape[1:]) for value in session.get_inputs()} == {
        "observation": ("tensor(float)", [4]),
        "image": ("tensor(uint8)", [3, 12, 10]),
        "instruction": ("tensor(int64)", [16]),
        "noise": ("tensor(float)", [3, 2]),
    }
    assert {value.name: value.shape[1:3] for value in session.get_outputs()} == {name: [3, 2] for name in OUTPUTS}
    assert kit["loaded"].manifest.vision == Vision((3, 12, 10), 16, 3)


def test_pixels_and_letters_are_bytes(kit: Kit) -> None:
    row = kit["loaded"].row(np.zeros(4), camera(), "lift")
    for place, value in ((5, 0.5), (5, -1.0), (5, 256.0), (5, 1e20), (len(row) - 1, 300.0)):
        odd = row.copy()
        odd[place] = value
        with pytest.raises(ValueError, match=f"a pixel or letter is {value:g}; they are bytes".replace("+", r"\+")):
            kit["loaded"].act(odd, None, deterministic=True)


def test_large_images_are_asked_about_in_smaller_parts() -> None:
    layout = Layout(3, 2, Vision((3, 480, 640), 16, 1))
    assert rows_at_once("float32", layout) == 4
    assert rows_at_once("float32", Layout(3, 2, Vision((3, 64, 64), 16, 1))) == 64
    assert rows_at_once("float32", Layout(3, 2, Vision((3, 1024, 1024), 16, 1))) == 1
    assert rows_at_once("int8", layout) == 1
    asked = layout.rows(np.array([[1.0, 2.0, 3.0, 9.0], [4.0, 5.0, 6.0, 65535.0]], np.float32))
    one = layout.rows(np.array([[4.0, 5.0, 6.0, 65535.0]], np.float32))
    assert np.array_equal(asked[1:], one)
    assert asked[0, :3].tolist() == [1.0, 2.0, 3.0]
    byte = lambda i, p: ((i + 1) * (2 * p + 1) * 2654435761 % 2**32) >> 24  # noqa: E731
    assert [int(value) for value in asked[0, 3:8]] == [byte(i, 9) for i in range(5)]


def test_it_decides_as_torch_does(kit: Kit) -> None:
    policy, loaded = kit["policy"], kit["loaded"]
    state, image = np.array([0.5, -1.0, 2.0, 3.0]), camera()
    row = loaded.row(state, image, "lift é")
    decision = loaded.act(row, np.random.default_rng(5))
    noise = loaded.noise((), np.random.default_rng(5)).reshape(1, 3, 2)
    seen = {
        "state": torch.tensor(state, dtype=torch.float32)[None],
        "image": torch.from_numpy(image.transpose(2, 0, 1).copy())[None],
        "instruction": encode_instructions(["lift é"], 16),
    }
    with torch.no_grad():
        params = policy.params(seen)
        latent = policy.sample(params, torch.from_numpy(noise))
        expected = {"action": policy.to_env(latent), "latent": latent, "log_prob": policy.log_prob(params, latent)}
        best = policy.to_env(policy.mode(params))
    for name, value in expected.items():
        assert getattr(decision, name).shape == (3, 2)
        np.testing.assert_allclose(getattr(decision, name), value[0].numpy(), atol=1e-5)
    assert decision.params.shape == (3, 2, policy.parameters_per_dimension)
    np.testing.assert_allclose(loaded.act(row, None, deterministic=True).action, best[0].numpy(), atol=1e-5)
    again = loaded.log_prob_of(row, decision.latent)
    np.testing.assert_allclose(again, decision.log_prob, atol=1e-5)


def test_actions_of_a_chunk_may_differ_by_what_each_dimension_spans() -> None:
    """Three actions of two dimensions, whose bounds are 1 and 2: a millionth of each is allowed."""
    policy, zeros = make_vla(VLAGaussianPolicy), np.zeros((1, 6))
    names = ("action", "deterministic_action", "latent", "log_prob")
    asked = Probe(zeros, zeros, dict.fromkeys(names, zeros), 0.0, zeros > 0, redrawn=0)
    for number in range(6):
        found = {name: zeros.copy() for name in names}
        found["action"][0, number] = 1.5e-6
        allowed = number % 2 == 1
        with nullcontext() if allowed else pytest.raises(UserError, match="Runtime's action is"):
            compare(policy, asked, found)


def test_a_camera_without_a_name_gives_its_image_alone(kit: Kit) -> None:
    with pytest.raises(ValueError, match="the policy's camera has no name; give its image alone"):
        kit["loaded"].row(np.zeros(4), {"front": camera()}, "push")


@pytest.mark.parametrize("part", ["state", "image", "instruction"])
def test_every_part_of_what_it_sees_counts(kit: Kit, part: str) -> None:
    seen: dict[str, Any] = {"values": np.zeros(4), "image": camera(), "instruction": "push"}
    other = {"state": {"values": np.ones(4)}, "image": {"image": camera(1)}, "instruction": {"instruction": "lift"}}
    one, two = (kit["loaded"].row(**look) for look in (seen, seen | other[part]))
    assert not np.array_equal(*(kit["loaded"].act(row, None, deterministic=True).params for row in (one, two)))


def test_a_batch_is_its_rows(kit: Kit) -> None:
    loaded = kit["loaded"]
    rows = np.stack([loaded.row(np.full(4, i), camera(i), f"task {i}") for i in range(70)])
    together = loaded.act(rows, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    alone = [loaded.act(row, rng) for row in rows]
    assert together.action.shape == (70, 3, 2)
    np.testing.assert_allclose(together.action, np.stack([one.action for one in alone]), atol=1e-5)


def test_the_runtime_of_a_robot_refuses_what_does_not_fit(kit: Kit) -> None:
    loaded = kit["loaded"]
    with pytest.raises(ValueError, match=r"the image is \(12, 10, 3\) float64; it must be \(12, 10, 3\) uint8"):
        loaded.row(np.zeros(4), camera().astype(float), "push")
    with pytest.raises(ValueError, match="17 bytes, the policy reads 16"):
        loaded.row(np.zeros(4), camera(), "x" * 17)
    with pytest.raises(ValueError, match=r"must be \(380,\)"):
        loaded.act(np.zeros(4), None, deterministic=True)
    with pytest.raises(ValueError, match="not finite"):
        loaded.act(loaded.row(np.full(4, np.nan), camera(), "push"), None, deterministic=True)


def test_a_golden_answer_that_was_edited_is_refused(kit: Kit) -> None:
    from deploy.export.artifact import assemble
    from deploy.runtime.onnx_file import read_model

    assert read_model(kit["file"].read_bytes()).inputs[1].name == "image"
    import onnx

    manifest = kit["done"].manifest
    first = list(manifest.golden.log_prob[0])
    first[5] += 1.0
    golden = replace(manifest.golden, log_prob=(tuple(first), *manifest.golden.log_prob[1:]))
    with pytest.raises(UserError, match=r"golden vector 0: log_prob of 'action\.1'"):
        OnnxPolicy.from_bytes(assemble(onnx.load(kit["file"]), replace(manifest, golden=golden)))
    larger = replace(manifest, vision=Vision((3, 10, 12), 16, 3))
    with pytest.raises(UserError, match=r"input 'image' has shape"):
        OnnxPolicy.from_bytes(assemble(onnx.load(kit["file"]), larger))


@pytest.mark.parametrize(
    ("vision", "said"),
    [
        (Vision((3, 12), 16, 3), "vision.image"),  # type: ignore[arg-type]
        (Vision((3, 0, 10), 16, 3), r"vision.image\[1\]"),
        (Vision((3, 12, 10), 16, 0), "vision.chunk"),
        (Vision((3, 12, 10), 1 << 20, 3), "manifest.vision is"),
        (Vision((3, 40_000, 40_000), 16, 3), "manifest.vision is"),
    ],
)
def test_impossible_sizes_are_refused_before_anything_is_allocated(kit: Kit, vision: Vision, said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(kit["done"].manifest, vision=vision)


def test_manifests_of_before_are_of_policies_that_see_nothing(small: Kit) -> None:
    import json

    raw = json.loads(small["loaded"].manifest.to_json())
    assert (raw["schema"], raw.pop("vision")) == (SCHEMA, None)
    old = Manifest.from_json(json.dumps(raw | {"schema": 2}))
    assert old.vision is None
    assert asdict(replace(old, schema=SCHEMA)) == asdict(small["loaded"].manifest)
    with pytest.raises(ValueError, match="sees no images"):
        small["loaded"].row(np.zeros(5), camera(), "push")


def test_rows_hold_pixels_and_bytes_exactly() -> None:
    layout = Layout(2, 1, Vision((3, 2, 2), 4, 5))
    image = np.arange(244, 256, dtype=np.uint8).reshape(2, 2, 3)
    row = layout.row(np.array([0.1, -7.0]), image, "hi")
    feeds = layout.feeds(row[None], np.zeros((1, 5), np.float32))
    assert feeds["observation"].tolist() == [[np.float32(0.1), -7.0]]
    assert np.array_equal(feeds["image"][0].transpose(1, 2, 0), image)
    assert feeds["instruction"].tolist() == [[104, 105, 0, 0]]
    assert feeds["noise"].shape == (1, 5, 1)
    assert (layout.row_size, layout.decision_size) == (18, 5)


def test_golden_vectors_hold_a_number_for_a_picture(kit: Kit) -> None:
    golden = kit["done"].manifest.golden
    assert {len(row) for row in golden.observation} == {5}
    layout = Layout(1, 1, Vision((1, 2, 2), 4, 1))
    (row,) = layout.rows(np.array([[0.5, 6.0]], np.float32)).tolist()
    drawn = [(i * 13 * 2654435761 % 2**32) >> 24 for i in range(1, 9)]
    assert row == [0.5, *drawn[:4], *(97 + byte % 26 for byte in drawn[4:7]), 0]
    for number in (-1.0, 0.5, 65536.0):
        rows = ((*golden.observation[0][:-1], number), *golden.observation[1:])
        with pytest.raises(UserError, match="the number of a picture"):
            replace(kit["done"].manifest, golden=replace(golden, observation=rows))


def test_it_can_be_made_int8(kit: Kit, tmp_path: Path) -> None:
    loaded = kit["loaded"]
    if loaded.manifest.family != "token":
        pytest.skip("the network is the same")
    done = export(kit["checkpoint"], tmp_path / "int8.onnx", rate=20.0, quantize="dynamic", observations=50)
    assert done.manifest.precision == "int8"
    rows = typical_observations(loaded, 20)
    assert difference(loaded, OnnxPolicy.load(tmp_path / "int8.onnx"), rows)["kl_max"] > 0


def test_it_can_be_compared_and_timed(kit: Kit) -> None:
    loaded = kit["loaded"]
    rows = typical_observations(loaded, 20)
    assert rows.shape == (20, 380)
    assert set(np.unique(rows[:, 4:364]).astype(int)) <= set(range(256))
    assert difference(loaded, loaded, rows)["kl_max"] == 0
    eager = eager_decision(loaded)
    assert eager is not None
    assert eager()[0].shape == (3, 2)  # type: ignore[index]


def test_a_server_answers_as_the_file_does(kit: Kit) -> None:
    local: OnnxPolicy = kit["loaded"]
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    row = local.row(np.array([0.5, -1e-3, 2.0, 7.0]), image, "push it")
    with serving(local) as server, asking(server.address) as served:
        here, there = (p.act(row, np.random.default_rng(3)) for p in (local, served))
        for name in ("action", "latent", "log_prob", "params"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


def test_images_of_0_to_1_are_no_bytes(kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.full((2, kit["loaded"].manifest.layout.row_size), 0.5, np.float32)
    np.save(tmp_path / "seen.npy", rows)
    assert main(["diff", str(kit["file"]), str(kit["file"]), "--observations", str(tmp_path / "seen.npy")]) == 2
    assert "seen.npy: a pixel or letter is 0.5; they are bytes" in capsys.readouterr().err
