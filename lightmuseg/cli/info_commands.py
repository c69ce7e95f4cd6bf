"""Commands that say what is here."""

from __future__ import annotations

import importlib
import platform
from importlib.util import find_spec

from lightmuseg import __version__
from lightmuseg.models.packaged import NAMED, bundle_folder
from lightmuseg.provenance import environment


def models() -> None:
    """List the models that come with the package: classes, um/px, what they learned from, and how good they are."""
    from lightmuseg.models.model import Model

    for name in NAMED:
        model = Model.open(name)
        card = model.card
        print(f"{name}: {', '.join(card.class_names)} at {card.mpp:g} um/px, tiles of {card.tile_size} px")
        about = {
            "file": model.path, "sha256": model.sha256, "dataset": card.dataset, "licence": card.licence,
            "figures": ", ".join(f"{key} {value:g}" for key, value in card.figures.items()),
        }  # fmt: skip
        for key, value in about.items():
            print(f"  {key}: {value or 'not stated'}")


def info() -> None:
    """Say which versions, devices, readers, runtimes and outputs work here, and what to install for the others."""
    import torch

    from lightmuseg.outputs import FORMATS
    from lightmuseg.runtimes import KINDS
    from lightmuseg.wsi.readers.opening import READERS

    print(f"lightmuseg {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"bundle: {bundle_folder()}")
    print("packages: " + ", ".join(f"{name} {version}" for name, version in environment()["packages"].items()))
    gpus = [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    print("devices: " + ", ".join(["cpu", *gpus]))
    parts = {
        "readers": {name: (package, "slides") for name, package in READERS.items()},
        "runtimes": {name: kind.package for name, kind in KINDS.items()},
        "outputs": {name: (one.package, "slides") for name, one in FORMATS.items() if one.package},
        "commands": {"view": ("uvicorn", "view"), "cohort --engine ray": ("ray", "ray"), "quantize": ("nncf", "int8")},
    }  # fmt: skip
    for what, needs in parts.items():
        here = [name for name, need in needs.items() if need is None or _works(need[0])]
        print(f"{what}: {', '.join(here)}")
        for name, need in needs.items():
            if name not in here:
                print(f"  {name} is missing: pip install 'lightmuseg[{need[1]}]'")


def _works(package: str | None) -> bool:
    """Whether a package is installed and loads."""
    if package is None:
        return True
    if find_spec(package) is None:
        return False
    try:
        importlib.import_module(package)
    except Exception:  # a library that lacks a part of the system has errors of its own
        return False
    return True
