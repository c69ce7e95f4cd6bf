"""The weights of a folder of studies, version by version."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.files import write_whole
from lightmuseg.networks.weights import read_state_dict
from lightmuseg.provenance import sha256_of
from lightmuseg.text_files import read_json, write_json

from .bundle_network import BundleNetwork

MAX_FACTS_BYTES = 1_000_000


class ModelStore:
    """Every version of the weights, of which one is in use.

    ``v0000.pt`` is a copy of the weights to start from. Each file has its facts beside it, as JSON. Processes see each
    other's changes at their next question; files are never changed once they are there.

    Args:
        folder: of the versions; made where it is not there.
        first: weights of version 0.
    """

    def __init__(self, folder: Path, first: Path) -> None:
        self.folder, self._first = folder, first

    def in_use(self) -> int:
        """The number of the version in use; where its file is gone, of the newest that is there."""
        self._require_first()
        number, numbers = _object_of(self.folder / "in_use.json").get("version", 0), self.numbers()
        return next((one for one in numbers if one == number), max(numbers))

    def path(self, number: int) -> Path:
        return self.folder / f"v{number:04d}.pt"

    def numbers(self) -> list[int]:
        """Of the versions that are there."""
        found = (re.fullmatch(r"v(\d{4,})\.pt", path.name) for path in self.folder.glob("v*.pt"))
        return sorted(int(match[1]) for match in found if match)

    def facts(self) -> list[dict[str, Any]]:
        """Of each version: number, hash, whether it is in use, and the facts it was added with."""
        used = self.in_use()
        return [
            {**_object_of(self.path(number).with_suffix(".json")), "version": number, "in_use": number == used}
            for number in self.numbers()
        ]

    def add(self, weights: Path, facts: Mapping[str, Any], use: bool) -> int:
        """Keep weights as a new version, in use or not, and return its number; InputError where they are no weights."""
        self._require_first()
        number = max(self.numbers()) + 1
        self._write(number, weights, facts)
        if use:
            self.use(number)
        return number

    def use(self, number: int) -> None:
        """Bring a version into use, an older one for instance; InputError where there is none of this number."""
        self._require_first()
        if number not in self.numbers():
            raise InputError(f"version {number}: is not there; one of {', '.join(map(str, self.numbers()))}.")
        write_json(self.folder / "in_use.json", {"version": number})

    def _require_first(self) -> None:
        if not self.path(0).is_file():
            self._write(0, self._first, {"from": self._first.name})

    def _write(self, number: int, weights: Path, facts: Mapping[str, Any]) -> None:
        read_state_dict(weights)
        path = self.path(number)
        added = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        write_json(path.with_suffix(".json"), {"sha256": sha256_of(weights), "added": added, **facts})
        write_whole(path, lambda temporary: shutil.copyfile(weights, temporary))


class VersionedModel:
    """The network of a store's version in use.

    Args:
        bundle: a bundle's root.
        store: of the versions of its weights.
        variants, label_codes: as of :class:`.BundleNetwork`.
    """

    def __init__(
        self,
        bundle: Path,
        store: ModelStore,
        variants: Sequence[str] = (),
        label_codes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.store = store
        self._arguments = variants, label_codes
        self._bundle = bundle
        self._network: BundleNetwork | None = None
        self._state: tuple[Path, int] | None = None

    def network(self) -> BundleNetwork:
        """The network with the weights in use, which another process may have changed."""
        path = self.store.path(self.store.in_use())
        state = path, path.stat().st_mtime_ns
        if self._network is None or self._state != state:
            self._network, self._state = BundleNetwork(self._bundle, path, *self._arguments), state
        return self._network


def _object_of(path: Path) -> dict[str, Any]:
    """What a file of JSON holds; nothing where it is not there."""
    content = read_json(path, "delete it", MAX_FACTS_BYTES) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no JSON object; delete it.")
    return content
