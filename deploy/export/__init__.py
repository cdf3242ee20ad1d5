"""Checkpoint to artifact. Needs torch, and onnx to write with."""

from deploy.export.artifact import Exported, export

__all__ = ["Exported", "export"]
