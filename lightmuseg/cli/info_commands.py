"""Commands that say what is here."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping

from lightmuseg import __version__
from lightmuseg.errors import first_line
from lightmuseg.models.packaged import NAMED, bundle_folder
from lightmuseg.provenance import environment

# what each needs beside the core, and the extra that brings it
COMMANDS = {"view": ("uvicorn", "view"), "cohort --engine ray": ("ray", "ray"), "quantize": ("nncf", "int8")}


def models() -> None:
    """List the models that come with the package: classes, um/px, what they learned from, figures and limits."""
    from lightmuseg.models.model import Model

    for name in NAMED:
        model = Model.open(name)
        card = model.card
        print(f"{name}: {', '.join(card.class_names)} at {card.mpp:g} um/px, tiles of {card.tile_size} px")
        about = {
            "file": model.path, "sha256": model.sha256, "dataset": card.dataset, "licence": card.licence,
            "figures": ", ".join(f"{key} {value:g}" for key, value in card.figures.items()),
            "limits": card.limits,
        }  # fmt: skip
        for key, value in about.items():
            print(f"  {key}: {value or 'not stated'}")


def info() -> None:
    """Say which versions, devices, readers, runtimes and outputs work here, and what to install for the others."""
    import torch

    from lightmuseg.outputs import FORMATS
    from lightmuseg.runtimes import KINDS, obstacle
    from lightmuseg.wsi.readers.opening import READERS

    print(f"lightmuseg {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"bundle: {bundle_folder()}")
    print("packages: " + ", ".join(f"{name} {version}" for name, version in environment()["packages"].items()))
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    print("devices: " + ", ".join(["cpu", *(f"{gpu} ({torch.cuda.get_device_name(gpu)})" for gpu in gpus)]))
    device = gpus[0] if gpus else "cpu"
    _show("readers", {name: _missing(reader.package, "slides") for name, reader in READERS.items()})
    _show(f"runtimes on {device}", {name: obstacle(name, device) for name in KINDS})
    _show("outputs", {name: form.package and _missing(form.package, "slides") for name, form in FORMATS.items()})
    _show("commands", {name: _missing(*need) for name, need in COMMANDS.items()})


def _show(what: str, obstacles: Mapping[str, str | None]) -> None:
    print(f"{what}: {', '.join(name for name, reason in obstacles.items() if not reason) or 'none'}")
    for name, reason in obstacles.items():
        if reason:
            print(f"  not {name}: {reason}")


def _missing(package: str, extra: str) -> str | None:
    """Why a package cannot be used, and what to do; None where it loads."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        return f"{package} is not installed; pip install 'lightmuseg[{extra}]'."
    except Exception as error:  # a library that lacks a part of the system has errors of its own
        return f"{package} does not load ({first_line(error)})."
    return None
