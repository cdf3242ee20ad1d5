"""SmolVLM, the backbone of SmolVLA, in place of a LLaVA: another tower and other names, the same policy around it."""

from pathlib import Path

import pytest
import torch

from gipo.cli import main
from gipo.policies import build
from gipo.vla.huggingface import HuggingFaceNetworks, parallel_mask
from gipo.vla.openvla import VocabTailPolicy
from tests.gipo.vla.builders import SPACES, WORDS, observations, save_smolvlm

BINS = 16


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_smolvlm(tmp_path_factory.mktemp("smolvlm"), BINS)


def made(folder: Path, dtype: str = "bfloat16") -> VocabTailPolicy:
    torch.manual_seed(0)
    network = lambda spaces, outputs: HuggingFaceNetworks(spaces, outputs, str(folder), 2, dtype=dtype)  # type: ignore[arg-type]  # noqa: E731
    return VocabTailPolicy(SPACES, network, BINS)


def test_logits_are_those_of_the_models_own_forward_pass(pretrained: Path) -> None:
    from transformers import AutoTokenizer, SmolVLMForConditionalGeneration

    policy, seen = made(pretrained, "float32"), observations(1)
    whole = SmolVLMForConditionalGeneration.from_pretrained(pretrained, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    text = tokenizer("In: What action should the robot take to push the block?\nOut:", add_special_tokens=False)
    pixels = (seen["image"].float() / 255 - 0.5) / 0.25
    image = whole.model.get_image_features(pixel_values=pixels.unsqueeze(1)).pooler_output[0]
    embed = whole.get_input_embeddings()
    embedded = torch.cat(
        [embed(torch.tensor([1])), image, embed(torch.tensor(text["input_ids"])),
         policy.network.encoder.state(seen["state"]), torch.zeros(6, 32)]
    ).unsqueeze(0)  # fmt: skip
    mask = parallel_mask(torch.ones(embedded.shape[:2], dtype=torch.bool), 6, torch.float32)
    logits = whole(inputs_embeds=embedded, attention_mask=mask).logits[0, -6:]
    first = len(["<pad>", "<s>", "<unk>", "<image>", *WORDS])
    torch.testing.assert_close(
        policy.params(seen)[0], logits[:, first : first + BINS].unflatten(0, (3, 2)), atol=1e-5, rtol=1e-4
    )


def test_only_adapters_and_heads_learn_and_are_kept(pretrained: Path) -> None:
    policy, seen = made(pretrained), observations(3)
    latent = torch.zeros(3, *SPACES.decision, dtype=torch.int64)
    before = {name: value.clone() for name, value in policy.named_parameters()}
    (-policy.log_prob(policy.params(seen), latent).mean()).backward()
    torch.optim.SGD(policy.actor_parameters(), lr=0.1).step()
    moved = {name for name, value in policy.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all(".lora_" in name or ".state." in name or ".actor." in name for name in moved)
    again = build(policy.description())
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.params(seen), policy.params(seen))


@pytest.mark.campaign  # beside the LLaVA's, which trains, resumes and is evaluated in every run of the tests
def test_it_trains_from_the_command_line(pretrained: Path, tmp_path: Path) -> None:
    options: dict[str, object] = {
        "config": "toy_vla.yaml", "trainer.default_root_dir": tmp_path / "run", "data.total_frames": 16,
        "data.frames_per_iteration": 8, "data.capacity": 16, "data.rounds": 1, "data.batch": 8,
        "data.collector.num_envs": 4, "data.evaluation.num_envs": 2, "data.evaluation.episodes": 2,
        "model.policy": "gipo.vla.openvla.VocabTailPolicy", "model.policy.bins": BINS,
        "model.policy.network": "gipo.vla.huggingface.HuggingFaceNetworks",
        "model.policy.network.pretrained": pretrained, "model.policy.network.rank": 2,
    }  # fmt: skip
    main(["fit", *(f"--{name}={value}" for name, value in options.items())])
    assert list((tmp_path / "run").rglob("*.ckpt"))
