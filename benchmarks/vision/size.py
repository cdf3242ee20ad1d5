"""Memory and time of post-training a vision-language-action model of real size with low-rank adapters.

SmolVLM-500M is built and trained here, with random weights; LLaVA-1.5-7B, OpenVLA's size, is laid out on torch's `meta`
device, where tensors have shapes and no memory. Bytes are computed alike for both,

    memory = frozen · 2  +  learned · (4 weight + 4 gradient + 8 Adam)  +  saved for the backward pass

beside what the whole process of the first one took, which is more: temporaries, and the libraries themselves. Where
there is a GPU, both are trained on it, each with and without `recompute`, and what the most of its memory was is read.
"""

import contextlib
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.vision import models
from gipo.objectives import GIPO
from gipo.vla.huggingface import HuggingFaceNetworks
from gipo.vla.observations import VLASpaces, encode_instructions
from gipo.vla.openvla import VocabTailPolicy

SPACES = VLASpaces(
    (3, models.IMAGE, models.IMAGE), 8, (-1.0,) * models.ACTIONS, (1.0,) * models.ACTIONS, chunk=models.CHUNK
)
RANK = 32
DECISIONS = 8  # of a batch on a GPU, where activations are recomputed


def run() -> dict[str, Any]:
    """Figures of both models; batches are of one decision, 8 actions of 7 dimensions."""
    with tempfile.TemporaryDirectory() as name:
        folder = models.save(models.smolvlm(), Path(name))
        command = [sys.executable, "-m", "benchmarks.vision.size", str(folder)]
        small = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    figures = {f"smolvlm_{name}": value for name, value in small.items()}
    figures |= {f"llava_7b_{name}": value for name, value in _laid_out().items()}
    if torch.cuda.is_available():
        figures |= on_gpu()
    return figures | {"ok": small["computed_gib"] <= small["peak_gib"]}  # what is not counted only adds


def _policy(pretrained: str) -> VocabTailPolicy:
    return VocabTailPolicy(
        SPACES, lambda spaces, bins: HuggingFaceNetworks(spaces, bins, pretrained, RANK), models.BINS
    )


def _seen(batch: int, device: str = "cpu") -> Any:
    return {
        "image": torch.zeros(batch, *SPACES.image, dtype=torch.uint8, device=device),
        "state": torch.zeros(batch, SPACES.state_size, device=device),
        "instruction": encode_instructions(["push the block to the left"] * batch).to(device),
    }


def _loss(policy: VocabTailPolicy, seen: Any, latent: Tensor) -> Tensor:
    log_prob = policy.log_prob(policy.params(seen), latent)
    terms = GIPO()(log_prob - log_prob.detach(), torch.ones_like(log_prob))
    return terms.loss.mean() + policy.value(seen).square().mean()


def _bytes(policy: VocabTailPolicy, loss_of: Any) -> dict[str, Any]:
    """What an update takes, by part, and the loss."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of()
    weights = {value.untyped_storage()._cdata for value in policy.parameters()}
    frozen = sum(value.numel() for value in policy.parameters() if not value.requires_grad)
    learned = sum(value.numel() for value in policy.parameters() if value.requires_grad)
    activations = sum(size for key, size in saved.items() if key not in weights)
    return {
        "loss": loss,
        "frozen_millions": frozen / 1e6,
        "learned_millions": learned / 1e6,
        "saved_gib": activations / 2**30,
        "computed_gib": (2 * frozen + 16 * learned + activations) / 2**30,
    }


def _laid_out() -> dict[str, Any]:
    """LLaVA-1.5-7B, on the device of shapes."""
    from transformers import AutoModelForImageTextToText

    config = models.llava_7b()
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    words = models.tokenizer(config.text_config.vocab_size)
    loaded = mock.patch("gipo.vla.huggingface.load_pretrained", return_value=(model, words, models.PIXELS))
    shapes_know_no_autocast = mock.patch("torch.autocast", return_value=contextlib.nullcontext())
    with torch.device("meta"), loaded, shapes_know_no_autocast:
        policy = _policy("LLaVA-1.5-7B")
        prompt = torch.zeros(1, 20, dtype=torch.int64)
        encoder: Any = policy.network.encoder
        encoder._prompts = lambda _: (prompt, torch.ones_like(prompt).bool())
        latent = torch.zeros(1, *SPACES.decision, dtype=torch.int64)
        found = _bytes(policy, lambda: _loss(policy, _seen(1, "meta"), latent))
    del found["loss"]
    return found


def on_gpu() -> dict[str, Any]:
    """Memory and seconds of updates and decisions of both models on a GPU, with and without `recompute`."""
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    for name, config in {"smolvlm": models.smolvlm(), "llava_7b": models.llava_7b()}.items():
        for recompute, decisions in ((False, 1), (True, 1), (True, DECISIONS)):
            way = f"gpu_{name}_{decisions}{'_recomputed' if recompute else ''}"
            figures |= {f"{way}_{key}": value for key, value in _trained_on_gpu(config, recompute, decisions).items()}
    return figures


def _trained_on_gpu(config: Any, recompute: bool, decisions: int) -> dict[str, float]:
    from transformers import AutoModelForImageTextToText

    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    words = models.tokenizer(config.text_config.vocab_size)
    with mock.patch("gipo.vla.huggingface.load_pretrained", return_value=(model, words, models.PIXELS)):
        policy = _policy("random weights").cuda()
    if recompute:
        policy.network.recompute()
    del model
    torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.Adam([value for value in policy.parameters() if value.requires_grad], 1e-4)
    seen = _seen(decisions, "cuda")
    latent = torch.zeros(decisions, *SPACES.decision, dtype=torch.int64, device="cuda")

    def update() -> None:
        _loss(policy, seen, latent).backward()
        optimizer.step()
        optimizer.zero_grad()

    updating = _seconds(update)
    peak = torch.cuda.max_memory_allocated()
    with torch.inference_mode():
        deciding = _seconds(lambda: policy.params(seen))
    return {"peak_gib": peak / 2**30, "update_s": updating, "decision_s": deciding}


def _seconds(work: Any, times: int = 5) -> float:
    """The median of `times`, after one that warms up."""
    taken = []
    for _ in range(times + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def measured(folder: Path) -> dict[str, Any]:
    """What the model in a folder takes, for real; the peak is that of this process since it began."""
    torch.manual_seed(0)
    policy = _policy(str(folder))
    optimizer = torch.optim.Adam([value for value in policy.parameters() if value.requires_grad], 1e-4)
    seen, latent = _seen(1), torch.zeros(1, *SPACES.decision, dtype=torch.int64)
    found, times = {}, []
    for _ in range(2):
        began = time.perf_counter()
        found = _bytes(policy, lambda: _loss(policy, seen, latent))
        found.pop("loss").backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with torch.inference_mode():
        began = time.perf_counter()
        policy.params(seen)
        acting = time.perf_counter() - began
    return found | {"peak_gib": peak / 2**30, "update_s": min(times), "decision_s": acting}


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]))))
