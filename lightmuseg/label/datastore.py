"""Images, slides and labels in one folder, where nothing that somebody made is lost."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from lightmuseg.areas.annotations import POLYGONS
from lightmuseg.errors import InputError, first_line
from lightmuseg.files import write_whole
from lightmuseg.lock import locked
from lightmuseg.provenance import sha256_of
from lightmuseg.text_files import write_json, write_text

logger = logging.getLogger(__name__)

# what images, tags and endings may be called, so that a name leads to one file of one folder
NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}")
TAG = re.compile(r"[A-Za-z0-9_-]{1,40}")
ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,2}")
VERSIONS = "versions"
# of the list of images; scores of 10,000 slides take as much
MAX_BYTES = 100_000_000
# for another process that changes the list
SECONDS_TO_WAIT = 20


def is_name(text: str) -> bool:
    """Whether a text can be the name of an image: of one file in one folder, and not hidden."""
    try:
        return bool(NAME.fullmatch(text)) and len(text.encode()) <= 200 and not text.startswith(".")
    except UnicodeEncodeError:
        return False


class VersionedDatastore(LocalDatastore):
    """MONAI Label's folder of images with a ``datastore_v2.json`` and ``labels/TAG/ID.EXT``, made safe.

    Every label that is saved stays, as ``labels/TAG/versions/ID/0001.EXT`` and so on; ``labels/TAG/ID.EXT`` is the
    last one. Files appear whole. Every change is made under a lock to what is on disk then, and every question is
    answered from there, because the server and the processes that train and score share the folder.

    Args:
        folder: of the images.
        extensions: patterns of file names, such as ``*.svs``.
        auto_reload: take notice of files that are put into the folders, at the next question.
        check_image: given a file and its name; raises an InputError for one that is no image.
        check_label: given an image's file, a label's file, its name and what the client states of it; raises an
            InputError for one that does not fit.
    """

    def __init__(
        self,
        folder: str,
        extensions: list[str],
        auto_reload: bool,
        check_image: Callable[[Path, str], None],
        check_label: Callable[[Path, Path, str, dict[str, Any]], None],
    ) -> None:
        self._check_image, self._check_label = check_image, check_label
        self._mutex = threading.RLock()
        self._depth = 0
        self._model: LocalDatastoreModel | None = None
        self._stamp: tuple[int, int] | None = None
        # when each folder last changed, and the names in them; None before MONAI Label's own looking at them
        self._folders: dict[Path, int] | None = None
        self._names: dict[Path, set[str]] = {}
        # no watcher of MONAI Label's, which would be woken by our own writing
        super().__init__(folder, extensions=extensions, auto_reload=False)
        self._folders = {} if auto_reload else None

    @property
    def _datastore(self) -> LocalDatastoreModel:
        """What is on disk; within :meth:`_changing`, what is being changed."""
        with self._mutex:
            if self._depth == 0:
                self._load()
                if self._folders is not None:
                    self._notice_files()
            return self._model

    def _notice_files(self) -> None:
        """Take in files that came and leave out those that went.

        A folder's time changes with every change of the datastore's own file too, names only with others.
        """
        folders = [Path(self._model.image_path()), *Path(self._model.label_path(None)).glob("[!.]*/")]
        changed = {folder: folder.stat().st_mtime_ns for folder in folders}
        if changed == self._folders:
            return
        names = {folder: {path.name for path in folder.glob("[!.]*")} for folder in folders}
        if names != self._names:
            self._reconcile_datastore()
        self._folders, self._names = changed, names

    @_datastore.setter
    def _datastore(self, model: LocalDatastoreModel) -> None:
        self._model = model

    def _load(self) -> None:
        path = Path(self._datastore_config_path)
        stamp = (path.stat().st_mtime_ns, path.stat().st_ino) if path.is_file() else None
        if stamp is None or stamp == self._stamp:
            return
        try:
            model = LocalDatastoreModel.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: is damaged; move it away, and it is made anew from the files.") from error
        model.base_path = self._datastore_path
        if (model.images_dir, model.labels_dir) != (self._model.images_dir, self._model.labels_dir):
            raise InputError(f"{path}: leads out of the folder; move it away, and it is made anew from the files.")
        # of a folder that somebody else made
        model.objects = {name: one for name, one in model.objects.items() if self._is_own(name, one)}
        self._model, self._stamp = model, stamp

    def _is_own(self, name: str, image: ImageLabelModel) -> bool:
        """Whether an image's name, ending and tags are such as we give, and so lead nowhere else."""
        known = f"*{image.image.ext.lower()}" in self._extensions and all(map(TAG.fullmatch, image.labels))
        endings = [label.ext for label in image.labels.values()]
        return known and is_name(name) and all(ENDING.fullmatch(ending) for ending in endings)

    @contextmanager
    def _changing(self) -> Iterator[LocalDatastoreModel]:
        """The datastore for a change by this thread of this process alone; written when the block ends well."""
        with self._mutex:
            if self._depth:
                yield self._model
                return
            with locked(Path(self._lock_file), SECONDS_TO_WAIT):
                self._load()
                before = self._model.model_dump_json()
                self._depth += 1
                try:
                    yield self._model
                    if (now := self._model.model_dump_json()) != before or self._stamp is None:
                        self._refuse_unreadable(now)
                        # pydantic's own writer, many times sooner than Python's
                        text = self._model.model_dump_json(exclude={"base_path"}, indent=2)
                        write_text(self._datastore_config_path, text + "\n")
                        stat = Path(self._datastore_config_path).stat()
                        self._stamp = stat.st_mtime_ns, stat.st_ino
                except BaseException:
                    # what was changed in memory is forgotten
                    self._stamp = None
                    raise
                finally:
                    self._depth -= 1

    @staticmethod
    def _refuse_unreadable(text: str) -> None:
        if len(text) > MAX_BYTES:
            raise InputError(f"the list of images would have more than {MAX_BYTES / 1e6:.0f} MB; keep less about them.")
        try:
            LocalDatastoreModel.model_validate_json(text)
        except ValueError as error:
            raise InputError(f"what is stated of an image cannot be kept ({first_line(error)}).") from error

    # MONAI Label's own two ways to the file

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Nothing to do: every question loads what is new."""

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._changing():
            pass

    def _reconcile_datastore(self) -> None:
        with self._changing():
            super()._reconcile_datastore()

    def _to_id(self, file: str) -> tuple[str, str]:
        endings = (pattern.lstrip("*") for pattern in self._extensions)
        ending = max((one for one in endings if file.lower().endswith(one)), key=len, default=Path(file).suffix)
        return file[: len(file) - len(ending)], file[len(file) - len(ending) :]

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """Files of known endings, hidden ones left out; of several with the same stem the first by name.

        Outlines, as is the datastore's own file by its ending, are labels and never images.
        """
        if Path(path) == Path(self._model.image_path()):
            patterns = [pattern for pattern in patterns if pattern.lstrip("*") not in POLYGONS]
        chosen: dict[str, str] = {}
        for file in sorted(entry.name for entry in Path(path).iterdir() if entry.is_file()):
            known = any(file.lower().endswith(pattern.lstrip("*")) for pattern in patterns)
            stem = self._to_id(file)[0]
            if not known or not is_name(stem):
                continue
            if chosen.setdefault(stem, file) != file:
                logger.warning("%s: is left out, because %s has the same name; rename one.", file, chosen[stem])
        return {file: file for file in chosen.values()}

    def image_path(self, image_id: str) -> Path:
        """The file of an image; ImageNotFoundException where there is none."""
        uri = self.get_image_uri(image_id) if isinstance(image_id, str) else ""
        if not uri:
            raise ImageNotFoundException(f"image {str(image_id)[:80]!r}: is not in the datastore.")
        return Path(uri)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an image; InputError for a name that is none or is taken, or a file that is no image."""
        stem, ending = self._to_id(Path(image_filename).name)
        image_id = image_id or stem
        if not is_name(image_id):
            raise InputError(f"image {image_id[:80]!r}: is no name; leave out slashes and a dot in front.")
        if f"*{ending.lower()}" not in self._extensions or ending.lower() in POLYGONS:
            raise InputError(f"image {image_id!r}: {ending or 'no ending'} is not known; {' '.join(self._extensions)}.")
        self._check_image(Path(image_filename), f"{image_id}{ending}")
        with self._changing() as model:
            target = Path(model.image_path()) / f"{image_id}{ending}"
            if image_id in model.objects or target.exists():
                raise InputError(f"image {image_id!r}: is there already; choose another name.")
            write_whole(target, lambda temporary: shutil.copyfile(image_filename, temporary))
            info = {**(image_info or {}), "ts": int(time.time()), "name": target.name}
            model.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=ending))
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label as the image's next version, and add that, its time and its hash to ``label_info``.

        Raises:
            ImageNotFoundException: where the image is not there.
            InputError: for a tag that is none, or a label that does not fit the image.
        """
        image, label, info = self.image_path(image_id), Path(label_filename), label_info
        if not TAG.fullmatch(label_tag):
            raise InputError(f"tag {label_tag[:80]!r}: is no tag; give final, or letters and digits.")
        ending = label.suffix.lower()
        self._check_label(image, label, f"{image_id}{ending}", info)
        with self._changing() as model:
            folder = Path(model.label_path(label_tag))
            if folder.is_symlink() or folder.parent.is_symlink():
                raise InputError(f"tag {label_tag}: its folder is a link, and labels go nowhere else; remove that.")
            kept = folder / VERSIONS / image_id
            version = 1 + max((int(path.stem) for path in kept.glob("[0-9]*.*")), default=0)
            target = folder / f"{image_id}{ending}"
            for path in (kept / f"{version:04d}{ending}", target):
                write_whole(path, lambda temporary: shutil.copyfile(label, temporary))
            before = model.objects[image_id].labels.get(label_tag)
            if before is not None and before.ext != ending:
                (folder / f"{image_id}{before.ext}").unlink(missing_ok=True)
            info |= {"ts": int(time.time()), "name": target.name, "version": version, "sha256": sha256_of(label)}
            write_json(kept / f"{version:04d}.info", info)
            model.objects[image_id].labels[label_tag] = DataModel(info=dict(info), ext=ending)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Remove an image's file, or the link to it, and take its labels out of use."""
        with self._changing() as model:
            self.image_path(image_id)
            image = model.objects[image_id]
            for tag, label in image.labels.items():
                (Path(model.label_path(tag)) / f"{image_id}{label.ext}").unlink(missing_ok=True)
            (Path(model.image_path()) / f"{image_id}{image.image.ext}").unlink(missing_ok=True)
            super()._reconcile_datastore()

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Take a label out of use; its versions stay."""
        with self._changing() as model:
            label = model.label(label_id, label_tag)
            if label is None:
                raise LabelNotFoundException(f"label {label_id[:80]!r}, tag {label_tag[:40]!r}: is not there.")
            (Path(model.label_path(label_tag)) / f"{label_id}{label.ext}").unlink(missing_ok=True)
            super()._reconcile_datastore()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._changing():
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._changing():
            super().update_label_info(label_id, label_tag, info)

    def text(self) -> str:
        """All that is known, as JSON, which pydantic writes many times sooner than Python."""
        return self._datastore.model_dump_json(exclude={"base_path"})
