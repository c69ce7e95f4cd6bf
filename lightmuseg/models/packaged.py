"""What the package brings: the bundle, and models by name."""

from __future__ import annotations

from pathlib import Path

from lightmuseg.errors import InputError
from lightmuseg.files import is_file

# files in the bundle's models/; the first is the default everywhere
NAMED = {"tumor": "model.pt", "tissue": "tissue.pt"}


def bundle_folder() -> Path:
    """The bundle's root: in an installed package, in a source tree, or around a package that a bundle brings.

    Raises:
        InputError: where none of them is there.
    """
    package = Path(__file__).parents[1]
    places = (package / "bundle", package.parent / "bundle", package.parent)
    for place in places:
        if is_file(place / "configs" / "metadata.json"):
            return place
    raise InputError(f"{places[0]}: the bundle is missing; install lightmuseg anew.")


def find_model(name: str | Path) -> Path:
    """The file of a model: one of :data:`NAMED`, or a path.

    Raises:
        InputError: for what is neither, or a name whose file is missing.
    """
    if is_file(name):
        return Path(name).absolute()
    if str(name) not in NAMED:
        raise InputError(
            f"{name}: no such weights file, and none of the models {', '.join(NAMED)}; see 'lightmuseg models'."
        )
    path = bundle_folder() / "models" / NAMED[str(name)]
    if not is_file(path):
        raise InputError(f"{path}: the model is missing; install lightmuseg anew, or give a file by --model.")
    return path
