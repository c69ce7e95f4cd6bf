"""What a user may choose for the segmentation of slides."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmuseg.engine.plan import check_overlap
from lightmuseg.errors import InputError
from lightmuseg.outputs import wanted_formats
from lightmuseg.wsi.tiff import MPP_RANGE

# of the output's um/px over the model's: those at which tiles and output pixels coincide
MAX_FACTOR = 64
# what a user knows these values by
LABELS = {"mpp": "the model's um per pixel", "slide_mpp": "--mpp (slide_mpp)"}
# They change no row of the map, only where and how fast it is made, and what is written of it.
WITHOUT_EFFECT_ON_ROWS = ("output_dir", "resume", "changed", "workers", "ome", "dicom_seg", "tolerance")


@dataclass(frozen=True)
class Options:
    """Choices for a run.

    Attributes:
        output_dir: folder of the folders of results.
        class_names: of the indices from 1.
        mpp: um/px that the network was trained at.
        output_mpp: um/px of the map: ``mpp`` times 1, 2, 4 ... 64; None for twice ``mpp``.
        slide_mpp: um/px of the slides' level 0; None to take it from each file.
        series: number of the picture to take in TIFFs of several, counted from 0; None for the largest that is no
            label, macro or thumbnail.
        overlap: share of a tile that neighbours have in common, 0 to 0.5.
        batch_size: tiles to the network at once.
        tissue_mask: segment tissue only.
        region: segment only there: "x,y,width,height" in level-0 pixels, or a GeoJSON file.
        backend: what reads slides: auto, cucim, openslide, tifffile, dicom or image.
        workers: threads that read.
        read_device: "cpu", or "cuda" to decode JPEG on a GPU.
        ome: ``classes.ome.tif`` instead of ``classes.tif``.
        probabilities: also ``probabilities.zarr``.
        dicom_seg: also ``classes.dcm``, for slides in DICOM.
        tolerance: um by which ``regions.geojson`` may differ from the map.
        resume: go on with slides that were interrupted, leave out those that are done, do broken results again.
        changed: with ``resume`` do slides again whose file changed since their results were made.

    Raises:
        InputError: for a value that cannot be, or whose package is not installed.
    """

    output_dir: Path
    class_names: tuple[str, ...]
    mpp: float = 0.25
    output_mpp: float | None = None
    slide_mpp: float | None = None
    series: int | None = None
    overlap: float = 0.125
    batch_size: int = 4
    tissue_mask: bool = True
    region: str | None = None
    backend: str = "auto"
    workers: int = 2
    read_device: str = "cpu"
    ome: bool = False
    probabilities: bool = False
    dicom_seg: bool = False
    tolerance: float = 0.5
    resume: bool = False
    changed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", Path(self.output_dir))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if isinstance(self.region, (tuple, list)):
            # what MONAI's command line makes of numbers with commas between
            object.__setattr__(self, "region", ",".join(map(str, self.region)))
        for name in ("tissue_mask", "ome", "probabilities", "dicom_seg", "resume", "changed"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"--{name} {getattr(self, name)}: write True or False.")
        if self.changed and not self.resume:
            raise InputError("--changed: is of slides that are done; add --resume.")
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"--{name} {value}: give a whole number, 1 or more.")
        if self.series is not None and (type(self.series) is not int or self.series < 0):
            raise InputError(f"--series {self.series}: give a whole number, 0 or more.")
        for name in ("mpp", "overlap", "tolerance", "output_mpp", "slide_mpp"):
            value = getattr(self, name)
            optional = value is None and name.endswith("_mpp")
            if not optional and not (_is_number(value) and math.isfinite(value) and value >= 0):
                raise InputError(f"{LABELS.get(name, f'--{name}')} {value}: give a number, 0 or more.")
        check_overlap(self.overlap)
        if not MPP_RANGE[0] <= self.mpp <= MPP_RANGE[1]:
            raise InputError(f"{LABELS['mpp']} {self.mpp}: is outside {MPP_RANGE[0]} to {MPP_RANGE[1]} um per pixel.")
        # refuses packages that are not installed
        wanted_formats(self)
        self.factor  # noqa: B018 - refuses an output_mpp that cannot be

    @property
    def factor(self) -> int:
        """Model pixels to one of the output."""
        ratio = 2.0 if self.output_mpp is None else self.output_mpp / self.mpp
        factor = 2 ** round(math.log2(ratio)) if ratio > 0 else 0
        if not (1 <= factor <= MAX_FACTOR and math.isclose(factor, ratio, rel_tol=1e-3)):
            known = ", ".join(f"{self.mpp * 2**power:g}" for power in range(MAX_FACTOR.bit_length()))
            raise InputError(f"--output_mpp {self.output_mpp}: is not one of {known} um per pixel.")
        return factor

    def plain(self) -> dict[str, Any]:
        """All choices as plain values."""
        values = dataclasses.asdict(self)
        return {**values, "output_dir": str(self.output_dir), "class_names": list(self.class_names)}

    def identity(self) -> dict[str, Any]:
        """The choices that a resumed run must have in common with the interrupted one."""
        return {name: value for name, value in self.plain().items() if name not in WITHOUT_EFFECT_ON_ROWS}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
