"""Vision-language models of published sizes with random weights: their memory and time do not depend on the weights."""

import json
from pathlib import Path
from typing import Any

import torch

ACTIONS, IMAGE, CHUNK, BINS = 7, 224, 8, 256
SPECIAL = ["<pad>", "<s>", "<unk>", "<image>"]


def smolvlm(layers: int = 32, width: int = 960, tower: int = 12, pixels: int = 512) -> Any:
    """SmolVLM-500M (HuggingFaceTB/SmolVLM-500M-Instruct on the hub), the backbone of SmolVLA, which keeps 16 layers.

    Args:
        layers: of the language model.
        width: of its hidden states; heads of 64.
        tower: layers of the vision tower.
        pixels: side of its image.
    """
    from transformers import LlamaConfig, SmolVLMConfig
    from transformers.models.smolvlm import SmolVLMVisionConfig

    heads = width // 64
    return SmolVLMConfig(
        vision_config=SmolVLMVisionConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=tower, num_attention_heads=12, image_size=pixels,
            patch_size=16,
        ),
        text_config=LlamaConfig(
            vocab_size=49280, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=max(1, heads // 3), tie_word_embeddings=False,
        ),
        image_token_id=3, scale_factor=4, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip


def llava_7b() -> Any:
    """LLaVA-1.5-7B (arXiv 2310.03744): a CLIP-L tower at 336 pixels and Llama-2-7B, OpenVLA's language model."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(vocab_size=32064),  # the rest of Llama-2-7B is the default
        image_token_index=3,
    )  # fmt: skip


def tokenizer(size: int) -> Any:
    """A tokenizer of `size` words, of which every one that is asked is unknown."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate([*SPECIAL, *(f"<{i}>" for i in range(size - len(SPECIAL)))])}
    made = Tokenizer(WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", unk_token="<unk>")


PIXELS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def save(config: Any, folder: Path) -> Path:
    """A model with random weights in bf16, its tokenizer and image statistics, as a pretrained one lies on a disk."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer(config.text_config.vocab_size).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return folder
