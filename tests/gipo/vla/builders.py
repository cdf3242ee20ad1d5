"""Small policies, observations, and a vision-language model of OpenVLA's kind, on disk as a real one would be."""

import json
from pathlib import Path

import torch
from torch import Tensor

from gipo.vla.observations import VLASpaces, encode_instructions

SPACES = VLASpaces((3, 16, 16), 4, (-1.0, -2.0), (1.0, 2.0), chunk=3)
WORDS = ["In", ":", "What", "action", "should", "the", "robot", "take", "to", "?", "Out", "push", "lift", "block"]


def observations(*batch: int, seed: int = 0, spaces: VLASpaces = SPACES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    texts = [("push the block", "lift the block")[row % 2] for row in range(torch.Size(batch).numel())]
    return {
        "image": torch.randint(0, 256, (*batch, *spaces.image), dtype=torch.uint8, generator=generator),
        "state": torch.randn(*batch, spaces.state_size, generator=generator),
        "instruction": encode_instructions(texts).unflatten(0, batch),
    }


def save_model(folder: Path, bins: int = 16, seed: int = 0, tied: bool = False) -> Path:
    """A LLaVA of two tiny layers with random weights, its tokenizer and its image statistics."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<s>", "<unk>", "<image>", *WORDS])}
    vocabulary |= {f"<action_{index}>": len(vocabulary) + index for index in range(bins)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=len(vocabulary) + 4, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=tied,
        ),
        tie_word_embeddings=tied,
        image_token_index=vocabulary["<image>"],
    )  # fmt: skip
    config.norm_stats = {"toy": {"action": {"q01": [-0.5, -1.0], "q99": [0.5, 1.0], "mask": [True, False]}}}
    torch.manual_seed(seed)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    pixels = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


def save_smolvlm(folder: Path, bins: int = 16, seed: int = 0) -> Path:
    """SmolVLM's architecture, the backbone of SmolVLA, at a reduced size, with the same tokenizer."""
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm import SmolVLMVisionConfig

    save_model(folder, bins, seed)  # tokenizer and image statistics; the model is written over
    size = len(WORDS) + bins + 8
    config = SmolVLMConfig(
        vision_config=SmolVLMVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=4,
        ),
        text_config=LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
        ),
        image_token_id=3, scale_factor=2, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    return folder
