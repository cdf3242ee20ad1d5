"""Lets a torchvision be imported that was built for another torch, as beside one for CPUs alone from a local folder.

Its compiled operators cannot be loaded then, and its import fails where it describes two of them. LeRobot's drivers,
recording and data sets use none; whoever calls one is told that it is not there. `environments.py` copies this file
into an environment, which imports it when Python starts.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

DESCRIBED = ("nms", "qnms")
kept: list[Any] = []  # what is declared is forgotten with its library


class BeforeTorchvision(MetaPathFinder):
    """Declares the operators when torchvision is about to be imported, and finds nothing itself."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """None, as for every module."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            kept.append(library := torch.library.Library("torchvision", "DEF"))
            for operator in DESCRIBED:
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, BeforeTorchvision())
