"""What `gipo.vla.lerobot` asks of lerobot 0.4: configuration, policy class, processors; weights in safetensors."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CAMERA, STATE = "observation.images.", "observation.state"


@dataclass
class PreTrainedConfig:
    type: str = "act"
    state_size: int = 4
    action_size: int = 2
    chunk_size: int = 5
    noise: float = 0.0
    frozen: bool = False
    dropout: float = 0.0
    cameras: tuple[str, ...] = ("top",)
    device: str = "cpu"  # that it was trained on, and its processors saved for

    @classmethod
    def from_pretrained(cls, path: str) -> "PreTrainedConfig":
        return cls(**json.loads((Path(path) / "config.json").read_text()))


class ACTPolicy(nn.Module):
    """Regresses a chunk from the mean brightness of what its cameras see (the second twice as much of it, and so on),
    the state and the length of the task."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.model = nn.Linear(config.state_size + 2, config.chunk_size * config.action_size)

    @classmethod
    def from_pretrained(cls, path: str, config: PreTrainedConfig) -> "ACTPolicy":
        policy = cls(config)
        policy.load_state_dict(load_file(Path(path) / "model.safetensors"))
        return policy.to(config.device)

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        task = torch.tensor([[float(len(text))] for text in batch["task"]], device=batch[STATE].device)
        images = [number * batch[CAMERA + name] for number, name in enumerate(self.config.cameras, 1)]
        seen = torch.cat([sum(images).mean((1, 2, 3)).unsqueeze(-1), batch[STATE], task], -1)
        chunk = self.dropout(self.model(seen)).unflatten(-1, (self.config.chunk_size, self.config.action_size))
        chunk = chunk.detach() if self.config.frozen else chunk
        return chunk + self.config.noise * torch.randn_like(chunk)


@dataclass
class DeviceProcessorStep:
    """Brings what it is given to a device, which has to be there when it is read."""

    device: str

    def __post_init__(self) -> None:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("Requested device 'cuda' but CUDA is not available.")

    def __call__(self, given: Any) -> Any:
        if isinstance(given, Tensor):
            return given.to(self.device)
        return {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in given.items()}


@dataclass
class Pipeline:
    steps: list[Any]

    def __call__(self, given: Any) -> Any:
        for step in self.steps:
            given = step(given)
        return given


def make_pre_post_processors(
    config: PreTrainedConfig, pretrained_path: str, preprocessor_overrides: dict[str, Any] | None = None
) -> tuple[Pipeline, Pipeline]:
    saved = json.loads((Path(pretrained_path) / "processors.json").read_text())
    scale, device = saved["scale"], (preprocessor_overrides or {}).get("device_processor", saved)["device"]
    before = Pipeline([DeviceProcessorStep(device), lambda batch: batch | {STATE: batch[STATE] / scale}])
    return before, Pipeline([lambda chunk: chunk * scale, DeviceProcessorStep("cpu")])


def install(patch: pytest.MonkeyPatch) -> None:
    modules = {name: ModuleType(name) for name in ("lerobot", "lerobot.configs", "lerobot.policies")}
    configs, factory = ModuleType("lerobot.configs.policies"), ModuleType("lerobot.policies.factory")
    configs.PreTrainedConfig = PreTrainedConfig  # type: ignore[attr-defined]
    factory.get_policy_class = {"act": ACTPolicy}.__getitem__  # type: ignore[attr-defined]
    factory.make_pre_post_processors = make_pre_post_processors  # type: ignore[attr-defined]
    processor = ModuleType("lerobot.processor")
    processor.DeviceProcessorStep = DeviceProcessorStep  # type: ignore[attr-defined]
    modules |= {"lerobot.configs.policies": configs, "lerobot.policies.factory": factory}
    modules["lerobot.processor"] = processor
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)


def save_policy(folder: Path, scale: float = 1.0, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    (folder / "config.json").write_text(json.dumps({**PreTrainedConfig().__dict__, **options}))
    (folder / "processors.json").write_text(json.dumps({"scale": scale, "device": options.get("device", "cpu")}))
    save_file(ACTPolicy(PreTrainedConfig(**options)).state_dict(), folder / "model.safetensors")
    return folder
