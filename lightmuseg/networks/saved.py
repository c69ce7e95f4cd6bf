"""A file of torch.save: written whole, read whole and as data alone."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from lightmuseg.errors import InputError, first_line
from lightmuseg.files import write_whole

_BLOCK = 1 << 20
_BROKEN = (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
# by which torch.save began its files before they were zips
_MAGIC = re.escape(torch.serialization.MAGIC_NUMBER.to_bytes(10, "little"))
# What stands in the place of weights now and then: how it begins, what it is, and what to do.
_OTHERS = (
    (rb"\Z", "is empty", ""),
    (rb"\W*<[!?a-z]", "is a web page, such as a failed download leaves", "download the file again"),
    (rb"version https://git-lfs", "is a pointer of Git LFS, not the file", "get that by 'git lfs pull'"),
    (rb".{5}\0{3}\{", "is of safetensors", "convert it by torch.save(safetensors.torch.load_file(FILE), 'model.pt')"),
    (rb"\x89HDF", "is an HDF5 file, such as Keras writes", "give weights of PyTorch"),
    (rb"\x1f\x8b", "is packed by gzip", "unpack it"),
    (rb"\x80(?!.{1,16}" + _MAGIC + rb")", "is a pickle that torch.save did not write", "save it by that"),
)


def read_saved(path: str | Path, remedy: str) -> Any:
    """What torch.save wrote, on the CPU: tensors and plain values; nothing in the file is run.

    PyTorch itself compares no checksums, and takes as much memory as a file says that it needs. Files of before PyTorch
    1.6 have no checksums; of these only a missing end shows.

    Args:
        path: of the file.
        remedy: what a user can do about a damaged one.

    Raises:
        InputError: where it is damaged, something else, or holds more than tensors and plain values.
        OSError: where it cannot be opened.
    """
    with open(path, "rb") as file:
        beginning = file.read(64)
    for pattern, what, own_remedy in _OTHERS:
        if re.match(pattern, beginning, re.DOTALL | re.IGNORECASE):
            raise InputError(f"{path}: {what}; {own_remedy or remedy}.")
    if beginning.startswith(b"PK"):
        _check_archive(Path(path), remedy)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common base for what a broken file raises
        found = re.search(r"GLOBAL (\S{1,80})", str(error))
        if isinstance(error, pickle.UnpicklingError) and found:
            fault = f"holds the Python object {found[1]}, and only tensors and plain values are read"
            raise InputError(f"{path}: {fault}; save network.state_dict() alone.") from error
        # what torch says of a pickle is advice to trust it
        reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({first_line(error)})"
        raise InputError(f"{path}: is no file of torch.save, or damaged{reason}; {remedy}.") from error


def write_saved(path: str | Path, content: Any) -> None:
    """Write ``content`` by torch.save, whole."""
    # through memory: torch.save turns a full disk into an error that does not say so
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def _check_archive(path: Path, remedy: str) -> None:
    """Refuse a zip that is not whole, or that torch.save did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            for member in members:
                with archive.open(member) as file:
                    while file.read(_BLOCK):
                        pass
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f"{path}: is damaged ({first_line(error)}); {remedy}.") from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename.rpartition("/")[2] for member in members]
    if "constants.pkl" in names:
        raise InputError(f"{path}: is a TorchScript archive; give the weights that it was made from.")
    if "data.pkl" not in names:
        raise InputError(f"{path}: is a zip archive, but not of torch.save; give the weights' own file.")
    # torch.save packs nothing; what is packed could fill the memory, and so could members that lie over each other
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise InputError(f"{path}: claims to be larger than it is; save it anew by torch.save.")
