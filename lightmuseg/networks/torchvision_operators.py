"""Let torchvision import where its compiled operators do not load."""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder

import torch

BOXES_TO_KEEP = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# A library that is dropped takes its operators with it.
_declared: list[torch.library.Library] = []


def declare_missing_operators() -> None:
    """Declare the operators that importing torchvision needs, where its own extension is missing or does not load.

    PyPI's torchvision is built for CUDA: beside a CPU build of PyTorch its extension does not load, and the import
    ends in "operator torchvision::nms does not exist", that of timm, segmentation-models-pytorch and some of
    transformers as well. With the schemas declared the import works; the operators themselves still cannot be called.
    Does nothing where torchvision is absent or whole, or on a second call.
    """
    spec = importlib.util.find_spec("torchvision")
    missing = [name for name in ("nms", "qnms") if not hasattr(torch.ops.torchvision, name)]
    if spec is None or not missing or _extension_loads(spec.submodule_search_locations[0]):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(name + BOXES_TO_KEEP)
    _declared.append(library)


def _extension_loads(folder: str) -> bool:
    """Whether torchvision's operators load, by the steps of ``torchvision.extension``."""
    spec = FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec("_C")
    if spec is None:
        return False
    try:
        torch.ops.load_library(spec.origin)
    except OSError:
        return False
    return True
