"""A folder of images to segment."""

from __future__ import annotations

from pathlib import Path

from lightmuseg.errors import InputError
from lightmuseg.wsi.images import IMAGE_SUFFIXES, files_by_stem


def list_images(folder: str | Path) -> list[dict[str, str]]:
    """The images in ``folder``, by name, as MONAI data dictionaries with the path ``image``.

    Raises:
        InputError: where there is no folder or no image in it, or two would get one result's name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of images with --dataset_dir.")
    images = files_by_stem(folder)
    if not images:
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return [{"image": str(path)} for path in images.values()]
