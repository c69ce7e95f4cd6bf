"""Exported networks on disk, made once for the weights they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightmuseg import __version__
from lightmuseg.files import write_whole
from lightmuseg.lock import locked

# seconds that another process may take to export a network
WAIT_S = 3600


def weights_hash(network: nn.Module) -> str:
    """Hex SHA-256 of a network's weights by their names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fingerprint(network: nn.Module, *rest: Any) -> str:
    """Hex SHA-256 of a network's structure and weights, this package's and PyTorch's version, and plain values."""
    values = (str(network), weights_hash(network), __version__, torch.__version__, *rest)
    return hashlib.sha256(repr(values).encode()).hexdigest()


def cache_folder() -> Path:
    """The folder of exported networks, below PyTorch's own (``TORCH_HOME``), made where it is not there."""
    folder = Path(torch.hub.get_dir()) / "lightmuseg"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def exported(name: str, make: Callable[[Path], Any], *companions: str) -> Path:
    """The file of this name in the cache; made where it is not there.

    Args:
        name: of the file, which must name all that it depends on.
        make: writes it to the path that it is given.
        companions: endings of files that ``make`` writes beside it and are needed too, such as ".bin".
    """
    path = cache_folder() / name
    with locked(path.with_suffix(".lock"), WAIT_S, wait_for_dead=True):
        if not all(file.is_file() for file in (path, *map(path.with_suffix, companions))):

            def write(temporary: Path) -> None:
                make(temporary)
                for ending in companions:
                    temporary.with_suffix(ending).replace(path.with_suffix(ending))

            write_whole(path, write)
    return path
