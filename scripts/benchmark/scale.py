"""How often a wrong um/px is told by the nuclei: python scripts/benchmark/scale.py [NAME ...].

Reads the H&E in the folder that LIGHTMUSEG_DATA names, each image at its own scale and at scales that are wrong by two,
three and four, by the way that ``lightmuseg segment`` takes. Prints a Markdown table with a row for each source: of how
many images ``run.json`` would warn, and how thick their nuclei are at their own scale. NAMEs choose sources.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lightmuseg.areas.tissue import tissue_of
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.slides.nuclei import fields_at, nuclei_um
from lightmuseg.slides.quality import nuclei_warning, tissue_corners
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers.opening import open_slide

MODEL_MPP, TILE = 0.25, 512
# um/px that is said, by the true one
TIMES = (1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4)
# A patient or a set, its files, and their um/px.
SOURCES = {
    "BCSS A0D2": ("bcss/rgbs/*A0D2*", 0.3),
    "BCSS A1G6": ("bcss/rgbs/*A1G6*", 0.3),
    "BCSS AA10": ("bcss_05um/AA10*rgb.png", 0.5),
    "BCSS AA15": ("bcss_05um/AA15*rgb.png", 0.5),
    "BreCaHAD 10": ("brecahad/images/Case_10*", 0.22),
    "BreCaHAD 11": ("brecahad/images/Case_11*", 0.22),
    "BreCaHAD 12": ("brecahad/images/Case_12*", 0.22),
    "CAMELYON": ("camelyon/images/*", 0.5),
    "ovary, nest": ("histolytics/*nest.jpg", 0.5),
    "ovary, stroma": ("histolytics/*stromal*", 0.5),
    "skin, CMU-1": ("slides/CMU*.svs", 0.499),
    "TCGA-CR-7395": ("slides/TCGA*.svs", 0.5),
}


def told(path: Path, mpp: float) -> tuple[str, float | None]:
    """The warning of an image that is said to have ``mpp`` um/px, empty for none, and how thick its nuclei are then."""
    with open_slide(path, mpp=mpp) as reader:
        view = ModelView(reader, MODEL_MPP)
        area = tissue_of(reader)
        plan = plan_tiles((view.width, view.height), view.scale, area, TILE, 0.0, 2)
        fields, field_mpp = fields_at(view, tissue_corners(view, area, plan), TILE)
        return nuclei_warning(mpp, fields, field_mpp), nuclei_um(fields, field_mpp)


def main(names: list[str]) -> None:
    """Print the table."""
    data = os.environ.get("LIGHTMUSEG_DATA")
    if not data:
        sys.exit("LIGHTMUSEG_DATA: is not set; name the folder of the images.")
    print("| source | images | " + " | ".join(f"x {times:.2g}" for times in TIMES) + " | um |")
    print("|---" * (len(TIMES) + 3) + "|")
    for name in names or SOURCES:
        pattern, mpp = SOURCES[name]
        paths = sorted(Path(data).glob(pattern))
        answers = [[told(path, mpp * times) for path in paths] for times in TIMES]
        counts = [sum(bool(warning) for warning, _ in row) for row in answers]
        thick = [um for _, um in answers[TIMES.index(1)] if um is not None]
        span = f"{min(thick):.1f} to {max(thick):.1f}" if thick else "none"
        print(f"| {name} | {len(paths)} | " + " | ".join(map(str, counts)) + f" | {span} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
