"""A pretrained vision-language model of Hugging Face's: read as safetensors alone, frozen, with adapters that learn."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from gipo.common.errors import UserError, first_line

REMOTE_CODE = "GIPO_TRUST_REMOTE_CODE"  # environment variable; a checkpoint must not be able to ask for it

STATISTICS = ("image_mean", "image_std")


def located(pretrained: str) -> str:
    """The whole path of a folder, so that a checkpoint means the same one wherever it is read; else the id of a hub.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(pretrained)
    if folder.is_absolute() and not folder.is_dir():
        raise UserError(f"there is no folder {pretrained}, where the pretrained model of this policy was; put it there")
    return str(folder.absolute()) if folder.is_dir() else pretrained


def load_pretrained(pretrained: str, dtype: torch.dtype) -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and image statistics.

    Raises:
        UserError: a file or a weight is missing or damaged, or the model is of another kind.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.image_processing_base import ImageProcessingMixin

    options: dict[str, Any] = {"trust_remote_code": os.environ.get(REMOTE_CODE) == "1"}
    try:
        model, loaded = AutoModelForImageTextToText.from_pretrained(
            pretrained, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(pretrained, **options)
        pixels, _ = ImageProcessingMixin.get_image_processor_dict(pretrained)
        _refuse_missing(sorted(loaded["missing_keys"]), "of the weights")
        _refuse_missing([name for name in STATISTICS if name not in pixels], "of the statistics of images")
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"cannot load a vision-language model from {pretrained!r}: {first_line(error)} (safetensors only; a model "
            f"that brings its own code runs only with the environment variable {REMOTE_CODE}=1)"
        ) from error
    inner = getattr(model, "model", None)
    if not hasattr(inner, "get_image_features") or language_model(inner) is None:
        raise UserError(
            f"{pretrained!r} is a {type(model).__name__}, whose parts are neither those of a LLaVA-like model nor "
            "SmolVLM's"
        )
    return model, tokenizer, pixels


def _refuse_missing(names: list[str], what: str) -> None:
    """Refuse a model that lacks something: transformers would make it at random, another at every load."""
    if names:
        raise ValueError(f"{len(names)} {what} are missing: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")


def language_model(model: Any) -> Any:
    """What reads the embeddings: LLaVA's kin call it `language_model`, SmolVLM and Idefics `text_model`."""
    return getattr(model, "language_model", None) or getattr(model, "text_model", None)


def with_adapters(model: Any, rank: int, alpha: int) -> Any:
    """The model, frozen, with trainable float32 low-rank adapters in its linear layers."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that has another now
        adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"))
    return adapted.get_base_model()


def recompute_layers(model: Any) -> None:
    """Have the layers of the model compute their activations once more in the backward pass, by transformers' means.

    Raises:
        UserError: the model cannot.
    """
    # The newer name; the older one ends with transformers 6.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False, "preserve_rng_state": False})  # nothing drops out
    except ValueError as error:
        raise UserError(f"model.recompute=true: {first_line(error)}") from error
