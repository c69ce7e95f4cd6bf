"""One slide: from its file to the folder of its results, whole or resumable."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightmuseg.errors import InputError
from lightmuseg.record import environment, sha256_of, write_json

from .area import Area, Intersection, WholeSlide
from .engine import segment_slide
from .heap import large_arrays_mapped
from .options import Options
from .plan import Plan, plan_tiles
from .quality import warnings_of
from .readers.opening import open_slide
from .region import read_region
from .rows import FORMAT, RowStore
from .tissue import tissue_of
from .uncertainty import BLOCK, Entropies, uncertainty_map
from .unfinished import Unfinished
from .view import ModelView, thumbnail
from .writers.measurements import Counts, write_measurements
from .writers.overlay import write_overlay
from .writers.pyramid import write_pyramid
from .writers.regions import write_regions
from .writers.report import write_report
from .writers.uncertainty import write_uncertainty

if TYPE_CHECKING:
    from lightmuseg.runtimes import Runtime

OVERLAY_SIDE = 2000
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
        unattended: one of very many, at which nobody looks: there is no progress bar, a state of other options is begun
            again, and a slide at which one process after the other dies is refused.
    """

    def __init__(
        self, slide: Path, runtime: Runtime, options: Options, model: dict[str, Any], unattended: bool = False
    ) -> None:
        self.slide, self.runtime, self.options, self.model = slide, runtime, options, model
        self.unattended = unattended
        self.folder = options.output_dir / result_name(slide)
        self.unfinished = Unfinished(self.folder, unattended)
        self.partial = self.unfinished.path
        self._seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Make the folder of results, and return its record.

        Raises:
            AlreadyThere: where there is one.
            Busy: where another process is at the slide.
            InputError: for a slide that cannot be read, or a state of other options.
        """
        self._refuse_results()
        with self.unfinished.claimed():
            # another process may have ended meanwhile
            self._refuse_results()
            with self.unfinished.counted(self.slide):
                record = self._segmented()
            os.replace(self.partial / "results", self.folder)
        return record

    def _refuse_results(self) -> None:
        if self.folder.exists():
            raise AlreadyThere(f"{self.folder}: is there already; choose another --output, or delete it.")

    def _segmented(self) -> dict[str, Any]:
        options = self.options
        with open_slide(
            self.slide, options.backend, options.slide_mpp, options.workers, options.read_device,
            series=options.series,
        ) as reader:  # fmt: skip
            identity = {
                **options.identity(), **self.model, "slide_bytes": _size(self.slide), "backend": reader.backend,
                "rows_format": FORMAT,
            }  # fmt: skip
            self.unfinished.begin(identity, options.resume)
            if options.dicom_seg and reader.backend != "dicom":
                raise InputError(f"{self.slide}: is no DICOM slide, which --dicom_seg needs to refer to; leave it out.")
            view = ModelView(reader, options.mpp)
            with self._timed("planning"):
                area = self._area(view)
                plan = plan_tiles(
                    (view.width, view.height), view.scale, area, self.runtime.tile_size, options.overlap, options.factor
                )
            store = RowStore(
                self.partial / "rows", plan, options.mpp * options.factor, view.scale * options.factor,
                options.class_names,
            )  # fmt: skip
            with self._timed("segmenting"), large_arrays_mapped(not _is_torch_on_cpu(self.runtime)):
                segment_slide(
                    view, area, plan, self.runtime, store, options.batch_size, options.probabilities,
                    not self.unattended,
                )  # fmt: skip
            counts, entropies, unread = self._gathered(store)
            with self._timed("checking"):
                warnings = warnings_of(view, area, plan, counts, entropies, store.mpp, unread.total())
            record = self._record(view, area, plan, store, unread, warnings)
            with self._timed("writing"):
                self._write(view, store, record, counts, entropies)
            record["seconds"] = self._seconds
            write_json(self.partial / "results" / "run.json", record)
        return record

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[stage] = round(time.monotonic() - started, 2)

    def _area(self, view: ModelView) -> Area:
        level0 = view.reader.levels[0]
        areas: list[Area] = [WholeSlide(level0.width, level0.height)]
        if self.options.region:
            areas.append(read_region(self.options.region, level0.width, level0.height))
        if self.options.tissue_mask:
            areas.append(tissue_of(view.reader))
        return areas[0] if len(areas) == 1 else Intersection(areas)

    def _gathered(self, store: RowStore) -> tuple[Counts, Entropies, Counter[str]]:
        """What the rows say: pixels and entropy of each class, and the places that could not be read."""
        counts, entropies = Counts.of(store.class_names), Entropies.of(store.class_names)
        unread: Counter[str] = Counter()
        for row in store.records():
            counts.merge(Counts(**row["counts"]))
            entropies.merge(Entropies(**row["entropies"]))
            unread.update(row["unread"])
        return counts, entropies, unread

    def _write(
        self, view: ModelView, store: RowStore, record: dict[str, Any], counts: Counts, entropies: Entropies
    ) -> None:
        results = self.partial / "results"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        options, names = self.options, self.options.class_names
        write_pyramid(results / ("classes.ome.tif" if options.ome else "classes.tif"), store, options.ome)
        write_regions(results / "regions.geojson", store, options.tolerance)
        mpp0 = view.reader.mpp
        pixels, step0 = thumbnail(view.reader, mpp0, OVERLAY_SIDE)
        classes = write_overlay(results / "overlay.png", pixels, store, step0)
        uncertainty = write_uncertainty(
            results / "uncertainty.png", pixels, uncertainty_map(store), step0, BLOCK * store.downsample, mpp0
        )
        rows = write_measurements(results / "measurements.csv", counts, names, store.mpp, entropies)
        write_report(
            results / "report.html", record, options.identity(), rows, pixels, classes, uncertainty, step0 * mpp0
        )
        if options.probabilities:
            from .writers.probabilities import write_probabilities

            write_probabilities(results / "probabilities.zarr", store)
        if options.dicom_seg:
            from .writers.dicom_seg import write_dicom_seg

            write_dicom_seg(results / "classes.dcm", store, self.slide)

    def _record(
        self, view: ModelView, area: Area, plan: Plan, store: RowStore, unread: Counter[str], warnings: list[str]
    ) -> dict[str, Any]:
        level0 = view.reader.levels[0]
        return {
            **environment(),
            "slide": str(self.slide),
            "slide_sha256": sha256_of(self.slide) if self.slide.is_file() else None,
            "reader": view.reader.backend,
            "picture": view.reader.picture,
            "level0_size": [level0.width, level0.height],
            "level0_mpp": view.reader.mpp,
            "map_size": [store.width, store.height],
            "map_mpp": store.mpp,
            "tiles": len(plan.tiles),
            "tiles_of_whole_slide": len(plan.xs_m) * len(plan.ys_m),
            "analysed_share": round(area.area0 / (level0.width * level0.height), 6),
            "unread_tiles": unread.total(),
            "unread_places": dict(unread.most_common(MAX_PLACES)),
            "warnings": warnings,
            "options": self.options.plain(),
            "model": self.model,
            "parity": dataclasses.asdict(self.runtime.parity) if self.runtime.parity else None,
        }


def result_name(slide: Path) -> str:
    """The name of a slide's folder of results."""
    if slide.is_dir():
        return slide.name if slide.name not in ("", "..") else slide.resolve().name
    return slide.stem


def _is_torch_on_cpu(runtime: Runtime) -> bool:
    said = runtime.describe()
    return str(said.get("runtime")).startswith("torch") and said.get("device") == "cpu"


def _size(slide: Path) -> int:
    """Bytes of a slide's file or of the files in its folder."""
    files = slide.rglob("*") if slide.is_dir() else [slide]
    return sum(path.stat().st_size for path in files if path.is_file())
