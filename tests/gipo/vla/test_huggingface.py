"""OpenVLA-OFT-like policies on a tiny LLaVA that was saved to disk and is loaded as a real one would be."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deploy.export.graph import trace
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.learning.policy_module import freeze
from gipo.learning.value_scale import PopArt, SymlogTwoHot, ValueScale
from gipo.policies import build
from gipo.vla.huggingface import HuggingFaceNetworks, _HuggingFaceEncoder, parallel_mask
from gipo.vla.observations import encode_instructions
from gipo.vla.openvla import VocabTailPolicy
from gipo.vla.pretrained import REMOTE_CODE
from tests.gipo.vla.builders import SPACES, WORDS, observations, save_model, save_smolvlm

BINS = 16
Args = Callable[..., list[str]]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llava"), BINS)


def made(folder: Path, dtype: Any = "bfloat16", rank: int = 2, **options: Any) -> VocabTailPolicy:
    torch.manual_seed(0)
    network = lambda spaces, outputs: HuggingFaceNetworks(spaces, outputs, str(folder), rank, dtype=dtype)  # noqa: E731
    return VocabTailPolicy(SPACES, network, BINS, **options)


def test_action_tokens_see_the_prompt_and_each_other_and_nobody_sees_padding() -> None:
    known = torch.tensor([[1, 0, 1, 1, 1]]).bool()
    mask = parallel_mask(known, queries=2, dtype=torch.float32)[0, 0]
    assert (mask == 0).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 1],
        [1, 0, 1, 1, 1],
    ]


def test_logits_are_those_of_the_last_tokens_of_the_vocabulary(pretrained: Path) -> None:
    """Against the model's own forward pass, prompt by prompt: adapters begin as nothing."""
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    policy, seen = made(pretrained, "float32"), observations(2)
    whole = LlavaForConditionalGeneration.from_pretrained(pretrained, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    state = policy.network.encoder.state(seen["state"])
    for row, verb in enumerate(("push", "lift")):
        text = tokenizer(f"In: What action should the robot take to {verb} the block?\nOut:", add_special_tokens=False)
        ids = torch.tensor([tokenizer.bos_token_id] + [whole.config.image_token_id] * 4 + text["input_ids"])
        embedded = torch.cat([whole.get_input_embeddings()(ids), state[row : row + 1], torch.zeros(6, 32)]).unsqueeze(0)
        pixels = (seen["image"][row : row + 1].float() / 255 - 0.5) / 0.25
        mask = parallel_mask(torch.ones(embedded.shape[:2], dtype=torch.bool), 6, torch.float32)
        logits = whole(inputs_embeds=embedded, pixel_values=pixels, attention_mask=mask).logits[0, -6:]
        first = len(["<pad>", "<s>", "<unk>", "<image>", *WORDS])
        expected = logits[:, first : first + BINS].unflatten(0, (3, 2))
        one = {name: value[row : row + 1] for name, value in seen.items()}
        torch.testing.assert_close(policy.params(one)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("option", ["gripper_binarize", "gripper_invert"])
def test_a_gripper_that_no_statistics_name_is_not_turned_in_silence(pretrained: Path, option: str) -> None:
    with pytest.raises(UserError, match=r"of what statistics mask, and those of 'bounds' mask nothing"):
        made(pretrained, **{option: True})


def test_a_prompt_may_have_braces_of_its_own(pretrained: Path) -> None:
    def network(spaces: Any, outputs: int) -> HuggingFaceNetworks:
        return HuggingFaceNetworks(spaces, outputs, str(pretrained), 2, prompt='{"task": "{instruction}"} {}')

    assert VocabTailPolicy(SPACES, network, BINS).params(observations(2)).isfinite().all()


def test_instructions_of_different_lengths_do_not_disturb_each_other(pretrained: Path) -> None:
    policy, seen = made(pretrained, "float32"), observations(2)
    seen["instruction"] = encode_instructions(["push", "lift the block to the block"])
    together = policy.params(seen)
    for row in range(2):
        alone = policy.params({name: value[row : row + 1] for name, value in seen.items()})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], policy.params(seen | {"instruction": seen["instruction"].flip(0)})[0])


def test_images_of_several_cameras_follow_each_other(pretrained: Path) -> None:
    """Against the one of each camera alone: the embeddings that the language model reads."""
    first, second = observations(3), observations(3)
    second["image"] = 255 - second["image"]
    both = first | {"image": torch.cat([first["image"], second["image"]], 1)}
    spaces = replace(SPACES, image=(2 * SPACES.image[0], *SPACES.image[1:]), cameras=("front", "wrist"))
    torch.manual_seed(0)
    several = VocabTailPolicy(
        spaces, lambda *sizes: HuggingFaceNetworks(*sizes, str(pretrained), 2, dtype="float32"), BINS
    )
    alone = made(pretrained, "float32").network.encoder
    found = several.network.encoder._seen(both["image"], torch.float32)
    expected = [alone._seen(seen["image"], torch.float32) for seen in (first, second)]
    torch.testing.assert_close(found, torch.cat(expected, 1))
    params = several.params(both)
    assert params.shape == (3, *SPACES.decision, BINS)
    for camera in (first, second):  # each of them is seen
        other = both | {"image": torch.cat([camera["image"]] * 2, 1)}
        assert not torch.allclose(several.params(other), params)


def test_a_camera_of_another_size_is_brought_to_that_of_the_tower_by_itself(pretrained: Path) -> None:
    wide = (SPACES.image[0], SPACES.image[1], 2 * SPACES.image[2])  # type: ignore[operator]
    spaces = replace(SPACES, image=(SPACES.image, wide), cameras=("front", "wrist"))
    several = VocabTailPolicy(
        spaces, lambda *sizes: HuggingFaceNetworks(*sizes, str(pretrained), 2, dtype="float32"), BINS
    )
    first, second = observations(3), torch.randint(0, 256, (3, *wide), dtype=torch.uint8)
    both = first | {"image": spaces.together([first["image"], second])}
    encoder = several.network.encoder
    alone = made(pretrained, "float32").network.encoder
    expected = alone._seen(first["image"], torch.float32)
    found = encoder._seen(both["image"], torch.float32)
    torch.testing.assert_close(found[:, : expected.shape[1]], expected)
    assert found.shape == (3, 2 * expected.shape[1], expected.shape[2])
    assert several.params(both).shape == (3, *SPACES.decision, BINS)


def test_half_precision_weights_and_float32_ratios(pretrained: Path) -> None:
    policy, seen = made(pretrained), observations(4)
    frozen = {value.dtype for value in policy.parameters() if not value.requires_grad}
    assert frozen == {torch.bfloat16}
    assert {value.dtype for value in policy.actor_parameters()} == {torch.float32}
    params = policy.params(seen)
    latent = policy.sample(params, policy.noise((4,)))
    assert params.dtype == policy.log_prob(params, latent).dtype == policy.value(seen).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert policy.network.critic(policy.features(seen)).dtype == torch.float32
    exact = made(pretrained, "float32").params(seen)
    torch.testing.assert_close(params, exact, atol=0.05, rtol=0.05)
    assert not torch.equal(params, exact)


@pytest.mark.parametrize("scale", [ValueScale, PopArt, partial(SymlogTwoHot, 9)])
def test_values_are_of_chunk_steps_whatever_the_critic_says_of_one(
    pretrained: Path, scale: Callable[[], ValueScale]
) -> None:
    policy, seen = made(pretrained, "float32"), observations(2)
    policy.scale_values(scale(), learned=False)
    assert policy.value(seen).shape == (2, SPACES.chunk)
    outputs = policy.value_outputs(policy.features(seen))
    assert policy.value_scale.loss(outputs, torch.zeros(2, SPACES.chunk)).shape == (2, SPACES.chunk)


def test_a_gradient_moves_adapters_and_head_and_nothing_that_was_pretrained(pretrained: Path) -> None:
    policy, seen = made(pretrained), observations(4)
    before = {name: value.clone() for name, value in policy.named_parameters()}
    params = policy.params(seen)
    loss = -policy.log_prob(params, torch.zeros(4, *SPACES.decision, dtype=torch.int64)).mean()
    loss.backward()
    torch.optim.SGD(policy.actor_parameters(), lr=0.01).step()
    moved = {name for name, value in policy.named_parameters() if not torch.equal(value, before[name])}
    assert any("lora_B" in name for name in moved)
    assert "network.actor.weight" in moved
    assert all(".lora_" in name or ".state." in name or ".actor." in name for name in moved)
    again = policy.params(seen)
    assert -policy.log_prob(again, torch.zeros(4, *SPACES.decision, dtype=torch.int64)).mean() < loss


def test_a_checkpoint_holds_only_what_learns_and_the_rest_comes_from_its_folder(pretrained: Path) -> None:
    policy, seen = made(pretrained), observations(3)
    with torch.no_grad():
        for value in policy.actor_parameters():
            value.add_(0.01)
    state = policy.state_dict()
    assert not {name for name, value in policy.named_parameters() if not value.requires_grad} & set(state)
    again = build(policy.description())
    again.load_state_dict(state)
    assert torch.equal(again.params(seen), policy.params(seen))
    assert torch.equal(pickle.loads(pickle.dumps(policy)).params(seen), policy.params(seen))  # as workers get it


def test_a_checkpoint_means_the_same_folder_wherever_it_is_read(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asks no hub for a model of the folder's name."""
    monkeypatch.chdir(pretrained.parent)
    policy = made(Path(pretrained.name))
    found = policy.description()
    assert found["network"]["init_args"]["pretrained"] == str(pretrained)
    monkeypatch.chdir(tmp_path)
    assert build(found).description() == found
    found["network"]["init_args"]["pretrained"] = str(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"there is no folder .*/elsewhere, where the pretrained model of this policy"):
        build(found)


def test_a_head_tied_to_the_embeddings_stays_out_of_a_checkpoint(tmp_path: Path) -> None:
    policy, seen = made(save_model(tmp_path, BINS, tied=True)), observations(3)
    state = policy.state_dict()
    assert not [name for name in state if "lm_head" in name or "embed_tokens" in name]
    again = build(policy.description())
    again.load_state_dict(state)
    assert torch.equal(again.params(seen), policy.params(seen))


def test_a_checkpoint_holds_what_has_learned_and_is_frozen_now(pretrained: Path) -> None:
    """By `model.frozen`: adapters and state projector are not in the model's folder."""
    policy, seen = made(pretrained), observations(3)
    with torch.no_grad():
        for value in policy.actor_parameters():
            value.add_(0.01)
    before, expected = set(policy.state_dict()), policy.params(seen)
    freeze(policy, ["encoder"])
    assert set(policy.state_dict()) == before
    again = build(policy.description())
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.params(seen), expected)


def test_it_is_not_exported(pretrained: Path) -> None:
    with pytest.raises(UserError, match="VocabTailPolicy cannot be exported to ONNX: HuggingFaceNetworks reads"):
        trace(made(pretrained))


def test_it_is_served_from_its_checkpoint_and_its_folder(pretrained: Path, tmp_path: Path) -> None:
    """What a robot is answered is what the policy says, in bf16 as it was trained."""
    pytest.importorskip("zmq", reason="the extra `serve`")
    from deploy.export.checkpoint_policy import CheckpointPolicy
    from tests.deploy.builders import save
    from tests.deploy.test_deploy_serving import asking, serving

    policy = made(pretrained)
    checkpoint = save(policy, tmp_path / "a.ckpt", interface=None)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SPACES.image[1], SPACES.image[2], 3), dtype=np.uint8)
    state = rng.standard_normal(SPACES.state_size)
    with serving(CheckpointPolicy(checkpoint, rate=5.0)) as server, asking(server.address) as served:
        decision = served.act(served.row(state, image, "push the block"), np.random.default_rng(3))
    seen = {
        "image": torch.from_numpy(image).permute(2, 0, 1)[None],
        "state": torch.from_numpy(state).float()[None],
        "instruction": encode_instructions(["push the block"]),
    }
    params = policy.params(seen)[0]
    torch.testing.assert_close(torch.from_numpy(decision.params).view_as(params), params)
    latent = torch.from_numpy(decision.latent)
    torch.testing.assert_close(torch.from_numpy(decision.log_prob), policy.log_prob(params, latent))
    torch.testing.assert_close(torch.from_numpy(decision.action), policy.to_env(latent))
    assert server.refused == 0


def test_what_it_answers_hangs_on_no_other_question(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16, on a GPU, log-probs moved by hundredths of a nat with the number that is computed together."""
    from deploy.export.checkpoint_policy import CheckpointPolicy
    from tests.deploy.builders import save

    together, prompts = [], _HuggingFaceEncoder._prompts
    monkeypatch.setattr(
        _HuggingFaceEncoder, "_prompts", lambda *given: together.append(len(given[1])) or prompts(*given)
    )
    served = CheckpointPolicy(save(made(pretrained), tmp_path / "a.ckpt", interface=None), rate=5.0)
    assert len(together) < 40  # questions until it serves
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, SPACES.image[1], SPACES.image[2], 3), dtype=np.uint8)
    rows = np.stack([served.row(rng.standard_normal(SPACES.state_size), each, "push the block") for each in image])
    latent = rng.integers(0, BINS, (9, *SPACES.decision))
    of_all = served.log_prob_of(rows, latent)
    np.testing.assert_array_equal(of_all[4], served.log_prob_of(rows[4], latent[4]))
    assert set(together) == {1}


def test_other_frozen_weights_than_those_trained_with_are_refused(pretrained: Path, tmp_path: Path) -> None:
    description = made(pretrained).description()
    description["network"]["init_args"]["pretrained"] = str(save_model(tmp_path, BINS, seed=1))
    with pytest.raises(RuntimeError, match="frozen weights are not those"):
        build(description).load_state_dict(made(pretrained).state_dict())


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path, BINS)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors only"):
        made(folder)


def test_code_of_a_model_is_run_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path, BINS)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nraise ValueError('their code')\n"
    )
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(UserError, match=REMOTE_CODE):
        made(folder)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load a vision-language model"):
        made(tmp_path)


def _without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "language_model.model.layers.0.mlp" not in name}
    assert len(kept) == len(weights) - 3
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def _of_another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def _without_statistics(folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "image_mean"}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_a_layer, r"3 of the weights are missing: \S*language_model\.layers\.0\.mlp"),
        (_cut_short, "safetensors only"),
        (_of_another_size, "safetensors only"),
        (_without_statistics, "1 of the statistics of images are missing: image_mean"),
    ],
)
def test_a_damaged_model_is_refused_and_nothing_of_it_made_at_random(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = save_model(tmp_path, BINS)
    spoil(folder)
    with pytest.raises(UserError, match=f"cannot load a vision-language model from .*{said}"):
        made(folder)


def test_bins_must_fit_into_the_vocabulary(pretrained: Path) -> None:
    with pytest.raises(UserError, match=r"policy\.bins=1000 must fit"):
        HuggingFaceNetworks(SPACES, 1000, str(pretrained), rank=1)


def test_tokens_are_openvlas(pretrained: Path) -> None:
    policy = made(pretrained, unnorm_key="toy")
    # 16 edges of −1 … 1, 15 centres, from the top down; dimension 0 stretched to [−.5, .5], dimension 1 masked
    centres = torch.linspace(14 / 15, -14 / 15, 15)
    tokens = torch.arange(1, 16).unsqueeze(-1).expand(-1, 2)
    found = policy.to_env(tokens)
    torch.testing.assert_close(found[:, 0], 0.5 * centres)
    torch.testing.assert_close(found[:, 1], centres)
    assert torch.equal(policy.from_env(found), tokens)
    plain = made(pretrained).to_env(tokens)
    torch.testing.assert_close(plain, centres.unsqueeze(-1) * torch.tensor([1.0, 2.0]))  # the bounds themselves


def test_the_gripper_can_be_made_binary_and_turned_around(pretrained: Path) -> None:
    policy = made(pretrained, unnorm_key="toy", gripper_binarize=True, gripper_invert=True)
    assert policy.to_env(torch.tensor([[1, 1], [1, 15]]))[:, 1].tolist() == [-1, 1]
    assert policy.config()["gripper_invert"] is True


def test_unknown_statistics_are_refused(pretrained: Path) -> None:
    with pytest.raises(UserError, match=r"no statistics of 'libero'; policy\.unnorm_key may name: toy"):
        made(pretrained, unnorm_key="libero")


@pytest.mark.parametrize("shown", ["state", "two_images"])
def test_it_trains_resumes_and_is_evaluated_from_the_command_line(
    shown: str, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pretrained.parent)

    def args(iterations: int) -> list[str]:
        options: dict[str, object] = {
            "config": "toy_vla.yaml", "trainer.default_root_dir": tmp_path / "run", "data.total_frames": 8 * iterations,
            "data.task.shown": shown,
            "data.frames_per_iteration": 8, "data.capacity": 16, "data.rounds": 1, "data.batch": 8,
            "data.collector.num_envs": 4, "data.evaluation.num_envs": 2, "data.evaluation.episodes": 2,
            "data.evaluation.test_episodes": 2, "checkpoint.every": 1,
            "model.policy": "gipo.vla.openvla.VocabTailPolicy", "model.policy.bins": BINS,
            "model.policy.network": "gipo.vla.huggingface.HuggingFaceNetworks",
            "model.policy.network.pretrained": pretrained.name, "model.policy.network.rank": 2,
        }  # fmt: skip
        return ["fit", *(f"--{name}={value}" for name, value in options.items())]

    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    main(args(2))
    main([*args(3), f"--ckpt_path={last}"])
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"] == 3
    monkeypatch.chdir(tmp_path)  # where no such folder is
    main(["test", f"--config={tmp_path / 'run' / 'config.yaml'}", f"--ckpt_path={last}"])
    assert "over 2 episodes" in capsys.readouterr().out


@pytest.mark.parametrize("save", [save_model, save_smolvlm])
def test_recomputed_activations_give_the_same_gradients_and_are_not_kept(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    folder, seen = save(tmp_path, BINS), observations(3)
    latent = torch.zeros(3, *SPACES.decision, dtype=torch.int64)
    gradients, kept = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        policy = VocabTailPolicy(SPACES, partial(HuggingFaceNetworks, pretrained=str(folder)), BINS)
        described = policy.description()
        if recompute:
            policy.network.recompute()
        assert policy.description() == described  # it is how a policy learns, not what it is
        for parameter in policy.actor_parameters():  # adapters begin as nothing, and half of them without a gradient
            torch.nn.init.normal_(parameter, std=0.05)
        sizes: list[int] = []
        keep = lambda tensor, sizes=sizes: sizes.append(tensor.nbytes) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = -policy.log_prob(policy.params(seen), latent).mean()
        loss.backward()
        layers = policy.network.encoder.model.modules()
        assert not any(layer.training for layer in layers if type(layer).__name__.endswith("Attention"))
        gradients.append([parameter.grad for parameter in policy.actor_parameters()])
        kept.append(sum(sizes))
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=0, atol=0)
    assert kept[1] < kept[0] / 2
