"""One slide: from its file to the folder of its results, whole or resumable."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lightmuseg.areas.area import Area, Intersection, TissueMask, WholeSlide
from lightmuseg.areas.glass import without_glass
from lightmuseg.areas.region_of_interest import read_region
from lightmuseg.areas.tissue import seen, tissue_of
from lightmuseg.engine.counts import Counts
from lightmuseg.engine.entropy import Entropies
from lightmuseg.engine.pipeline import fill_rows
from lightmuseg.engine.plan import Plan, plan_tiles
from lightmuseg.engine.rows import FORMAT, RowStore
from lightmuseg.errors import InputError
from lightmuseg.files import is_folder, show
from lightmuseg.outputs import wanted_formats
from lightmuseg.outputs.overlay import OVERLAY_SIDE
from lightmuseg.outputs.segmented import SegmentedSlide
from lightmuseg.pictures import hatched
from lightmuseg.provenance import environment, sha256_of
from lightmuseg.text_files import write_json
from lightmuseg.wsi.identity import content_of, has_changed, identity_of
from lightmuseg.wsi.low_power import LowPower, thumbnail
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers.opening import open_slide

from .beside import Beside
from .damage import Damage, nothing_read
from .finished import ABSENT, BROKEN, CHANGED, RECORD, list_files, name_aside, show_instead, state_of
from .limits import require_names_that_fit
from .options import Options
from .quality import warnings_by_places, warnings_of
from .unfinished import Unfinished

if TYPE_CHECKING:
    from lightmuseg.runtimes import Runtime

logger = logging.getLogger(__name__)

# places of corrupt pixels that a record names
MAX_PLACES = 100


class AlreadyThere(InputError):
    """The slide's folder of results is there."""


class SlideJob:
    """Segment one slide.

    Args:
        slide: its file, or the folder of a DICOM series.
        runtime: the network.
        options: of the run.
        model: what is recorded of the network, and must be the same when a run is resumed.
        unattended: one of very many, at which nobody looks: a state of other options is started again, and a slide at
            which one process after the other dies is refused.
        progress: is called with the tiles that are done and all tiles.
    """

    def __init__(
        self, slide: Path, runtime: Runtime, options: Options, model: dict[str, Any], unattended: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        self.slide, self.runtime, self.options, self.model = slide, runtime, options, model
        self._progress = progress
        self.folder = options.output_dir / result_name(slide)
        self.unfinished = Unfinished(self.folder, unattended)
        self.partial = self.unfinished.path
        self._seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Make the folder of results, and return its record.

        Raises:
            AlreadyThere: where there is one.
            Busy: where another process is at the slide.
            InputError: for a slide that cannot be read or changes meanwhile, or a state of other options.
        """
        require_names_that_fit(self.folder)
        self._reason_to_replace()
        with self.unfinished.claimed():
            # another process may have ended meanwhile
            reason = self._reason_to_replace()
            notes = []
            if reason is not None:
                kept = name_aside(self.folder, self.slide)
                notes.append(f"{self.folder}: {reason}; it is done again, and what was there is kept as {kept.name}.")
                logger.warning(notes[0])
                self.unfinished.replaces = True
            with self.unfinished.counted(self.slide):
                record = self._segmented(notes)
            self.unfinished.require_held()
            # what was there may have been moved away meanwhile
            if reason is not None and self.folder.exists():
                show_instead(self.partial / "results", self.folder, kept)
            else:
                show(self.partial / "results", self.folder)
            self.unfinished.replaces = False
        return record

    def _reason_to_replace(self) -> str | None:
        """Why results that are there are done again; None where none are."""
        state, fault = state_of(self.folder, self.slide)
        if state == ABSENT:
            return None
        if self.options.resume and state == BROKEN:
            return f"the results were broken ({fault})"
        if self.options.resume and self.options.changed and state == CHANGED:
            return "the slide changed since"
        raise AlreadyThere(f"{self.folder}: is there already; choose another --output, or delete it.")

    def _segmented(self, notes: list[str]) -> dict[str, Any]:
        options = self.options
        with open_slide(
            self.slide, options.backend, options.slide_mpp, options.workers, options.read_device,
            series=options.series,
        ) as reader:  # fmt: skip
            slide = identity_of(self.slide)
            identity = {
                **options.identity(), **self.model, "slide": content_of(slide), "backend": reader.backend,
                "rows_format": FORMAT, "frame": reader.bounds and dataclasses.asdict(reader.bounds),
            }  # fmt: skip
            notes += self.unfinished.begin(identity, options.resume)
            view = ModelView(reader, options.mpp)
            self._require_formats(view)
            with self._timed("planning"):
                area, tissue, picture = self._area(view)
                plan = plan_tiles(
                    (view.width, view.height), view.scale, area, self.runtime.tile_size, options.overlap, options.factor
                )
                store = RowStore(
                    self.partial / "rows", plan, options.mpp * options.factor, view.scale * options.factor,
                    options.class_names,
                )  # fmt: skip
                segmented = self._unfilled(view, store)
            work = self._work(segmented) | {"places": partial(warnings_by_places, view, area, plan)}
            with self._timed("segmenting"), Beside(store, work) as beside:
                fill_rows(
                    view, area, plan, self.runtime, store, options.batch_size, options.probabilities,
                    partial(self._proceed, beside), tissue,
                )  # fmt: skip
            for row in store.records():
                segmented.counts.merge(Counts(**row["counts"]))
                segmented.entropies.merge(Entropies(**row["entropies"]))
            damage = Damage.of(store)
            if damage.total:
                # there is nothing to go on from
                self.unfinished.require_held()
                shutil.rmtree(self.partial / "rows")
                raise nothing_read(self.slide, damage.places)
            warnings = warnings_of(view, area, segmented.counts, store.mpp, damage, picture) + beside["places"]
            record = segmented.record
            record |= self._record(view, area, plan, segmented, damage, warnings, beside["hash"])
            with self._timed("writing"):
                self.unfinished.require_held()
                self._write(segmented)
            if has_changed(slide, identity_of(self.slide)):
                self.unfinished.require_held()
                self.unfinished.forget_rows()
                raise InputError(f"{self.slide}: changed while it was segmented; begin again when it is whole.")
            record |= {"slide_identity": slide, "notes": notes, "seconds": self._seconds}
            record["files"] = list_files(self.partial / "results")
            write_json(self.partial / "results" / RECORD, record)
        return record

    def _require_formats(self, view: ModelView) -> None:
        factor = self.options.factor
        width, height = (-(-size // factor) for size in (view.width, view.height))
        to_come = SimpleNamespace(
            width=width, height=height, downsample=view.scale * factor, class_names=self.options.class_names
        )
        for form in wanted_formats(self.options).values():
            if form.require is not None:
                form.require(self.slide, to_come)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[stage] = round(time.monotonic() - started, 2)

    def _area(self, view: ModelView) -> tuple[Area, TissueMask | None, LowPower | None]:
        """What is analysed, what of it is no glass, and the picture in which tissue was looked for."""
        level0 = view.reader.levels[0]
        areas: list[Area] = [WholeSlide(level0.width, level0.height)]
        if self.options.region:
            areas.append(read_region(self.options.region, level0.width, level0.height))
        if not self.options.tissue_mask:
            return areas[0] if len(areas) == 1 else Intersection(areas), None, None
        picture = seen(view.reader)
        if picture.unread.all():
            raise nothing_read(self.slide, picture.reasons)
        coarse = tissue_of(view.reader, picture)
        area = Intersection([*areas, coarse])
        return area, without_glass(view.reader, area, coarse, picture), picture

    def _proceed(self, beside: Beside, done: int, total: int) -> None:
        self.unfinished.require_held()
        beside.check()
        if self._progress is not None:
            self._progress(done, total)

    def _unfilled(self, view: ModelView, store: RowStore) -> SegmentedSlide:
        """The slide before its map is there."""
        picture = thumbnail(view.reader, view.reader.mpp, OVERLAY_SIDE)
        return SegmentedSlide(
            path=self.slide,
            class_map=store,
            counts=Counts.of(store.class_names),
            entropies=Entropies.of(store.class_names),
            record={},
            options=self.options.identity(),
            tolerance_um=self.options.tolerance,
            picture=hatched(picture.pixels, picture.unread),
            step0=picture.factor,
        )

    def _work(self, slide: SegmentedSlide) -> dict[str, Callable[[], Any]]:
        """What can be made while the map grows."""
        self.unfinished.require_held()
        results = self.partial / "results"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        work: dict[str, Callable[[], Any]] = {
            name: partial(form.write, results / name, slide)
            for name, form in wanted_formats(self.options).items()
            if form.beside
        }
        return {
            **work,
            "classes": lambda: slide.classes,
            "uncertainty": lambda: slide.uncertainty,
            "hash": lambda: sha256_of(self.slide, slide.class_map.require_filling) if self.slide.is_file() else None,
        }

    def _write(self, slide: SegmentedSlide) -> None:
        """What needs the whole map."""
        forms = {name: form for name, form in wanted_formats(self.options).items() if not form.beside}
        # each picture takes a fifth of a gigabyte for a moment
        with ThreadPoolExecutor(2, "write") as pool:
            written = [pool.submit(form.write, self.partial / "results" / name, slide) for name, form in forms.items()]
        for future in written:
            future.result()

    def _record(
        self, view: ModelView, area: Area, plan: Plan, segmented: SegmentedSlide, damage: Damage, warnings: list[str],
        slide_sha256: str | None,
    ) -> dict[str, Any]:  # fmt: skip
        level0, store, counts = view.reader.levels[0], segmented.class_map, segmented.counts
        analysed0 = max(0.0, area.area0 - counts.unread * store.downsample**2)
        analysed = analysed0 / (level0.width * level0.height)
        return {
            **environment(),
            "slide": str(self.slide),
            "slide_sha256": slide_sha256,
            "reader": view.reader.backend,
            "picture": view.reader.picture,
            "level0_size": [level0.width, level0.height],
            "level0_mpp": view.reader.mpp,
            "frame": view.reader.bounds and dataclasses.asdict(view.reader.bounds),
            "map_size": [store.width, store.height],
            "map_mpp": store.mpp,
            "tiles": len(plan.tiles),
            "tiles_of_whole_slide": len(plan.xs_m) * len(plan.ys_m),
            "analysed_share": round(analysed, 6),
            "tissue_share": round(analysed * sum(counts.tissue) / max(1, counts.analysed), 6),
            "unread_tiles": damage.tiles,
            "unread_places": dict(damage.places.most_common(MAX_PLACES)),
            "warnings": warnings,
            "options": self.options.plain(),
            "model": self.model,
            "runtime_choice": self.runtime.choice,
            "parity": dataclasses.asdict(self.runtime.parity) if self.runtime.parity else None,
        }


def result_name(slide: Path) -> str:
    """The name of a slide's folder of results."""
    if is_folder(slide):
        return slide.name if slide.name not in ("", "..") else slide.resolve().name
    # a name of DICOM files is a UID, and its last number no ending
    return slide.name if slide.suffix[1:].isdecimal() else slide.stem
