"""BCSS's regions as a pathologist's files: slides, and an annotation of each as QuPath exports it.

python scripts/make_annotated_slides.py --source BCSS --output annotated [--masks masks] [--mask_coding bcss]

Writes OUTPUT/slides/NAME.tif, a tiled TIFF that says its um per pixel, and OUTPUT/annotations/NAME.geojson with an
object for each part of a class; what BCSS left out is not drawn.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import fire
import tifffile

from lightmuseg.areas.annotations import Annotation, to_geojson
from lightmuseg.data.bcss import CODE_NAMES, CODES, Region, find_regions, read_mask
from lightmuseg.errors import report_faults_in_one_line
from lightmuseg.files import write_whole
from lightmuseg.outputs.outlines import outlines
from lightmuseg.text_files import write_json
from lightmuseg.wsi.images import read_rgb

# of a region in BCSS's names, which a slide's name has not
PLACE = "_xmin"
# Pixels by which an outline may leave a mask's; below 0.7 no pixel's middle changes its side.
TOLERANCE = 0.5


def make(source: str, output: str, masks: str = "masks", mask_coding: str = "bcss") -> None:
    """Write a slide and an annotation for each region of SOURCE.

    Args:
        source: a BCSS folder, with rgbs*/ and masks/.
        output: gets slides/ and annotations/.
        masks: name of the folder of masks in SOURCE.
        mask_coding: as of 'lightmuseg prepare bcss'.
    """
    for region in find_regions(Path(source), masks):
        name = region.name.partition(PLACE)[0]
        write_whole(Path(output, "slides", f"{name}.tif"), partial(_write_slide, region))
        drawn = outlines(read_mask(region.mask, mask_coding), TOLERANCE, 0, 0, 1.0)
        annotations = [
            Annotation(CODE_NAMES[code], polygon)
            for code, polygon in zip(drawn.classes.tolist(), drawn.polygons.tolist())
            if code != CODES["outside_roi"]
        ]
        write_json(Path(output, "annotations", f"{name}.geojson"), to_geojson(annotations, CODE_NAMES))
        print(f"{name}: {len(annotations)} objects")


def _write_slide(region: Region, path: Path) -> None:
    per_cm = 1e4 / region.mpp
    tifffile.imwrite(
        path, read_rgb(region.image), photometric="rgb", tile=(256, 256), resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(make)
