"""Importing torchvision, also with a CPU build of torch that its published wheel was not made for."""

import sys
from functools import cache
from typing import Any

import torch


@cache
def import_torchvision() -> Any:
    """The torchvision module.

    The wheel on PyPI is linked against CUDA; with a CPU build of torch its C extension does not load, and
    registering the fake ``nms`` kernels then fails ("operator torchvision::nms does not exist", pytorch/vision #9077).
    Declaring the two operators first lets the pure-Python parts (data sets, transforms, models) work.
    """
    try:
        import torchvision  # noqa: PLC0415
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
        import torchvision  # noqa: PLC0415
    return torchvision


@cache
def _declare_operators() -> torch.library.Library:
    """Kept alive by the cache: operators vanish with their Library."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
