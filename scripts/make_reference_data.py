"""The dataset of the demonstration model that comes with the bundle, from openly licensed pictures.

python scripts/make_reference_data.py SOURCE OUTPUT [--demo bundle/data/demo-source] [--tile_mpp 0.3]

SOURCE holds bcss/ (rgbs/, masks/ with the official mask of TCGA-A2-A0D2, tumor_masks/ with that of TCGA-A2-A1G6; CC0)
and camelyon/ (images/, masks/ of 0 and 255, 512 x 512 pixels of about 0.5 um; CC0). The demo's pictures (histolytics,
BSD-3) are those of 'lightmuseg prepare demo'. All are resampled to one um/px.

Training: the whole of A0D2, all of CAMELYON's tiles, and what the demo trains on of its two fields. TCGA-A2-A1G6, a
patient of whom nothing is trained on, is cut in two: its left third is for validation (it chooses the epoch), the
other two thirds are for test.
"""

from __future__ import annotations

from pathlib import Path

import fire
import numpy as np
from PIL import Image

from lightmuseg.data.bcss import CODES, Region, find_regions, read_mask
from lightmuseg.data.demo import BOXES, MPP
from lightmuseg.data.tiles import Cut, Tiling, write_dataset
from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.files import write_whole
from lightmuseg.wsi.images import files_by_stem, image_size, read_codes

TRAINED_ON, HELD_OUT = "TCGA-A2-A0D2", "TCGA-A2-A1G6"
CAMELYON_MPP = 0.5
DEMO_FIELDS = ("hgsc_nest", "hgsc_stromal_he")


def make(source: str, output: str, demo: str = "bundle/data/demo-source", tile_mpp: float = 0.3) -> None:
    """Write the prepared dataset, or nothing where it is there already.

    Args:
        source: folder of bcss/ and camelyon/.
        output: the dataset's folder; OUTPUT-source gets the masks that had to be coded anew.
        demo: the pictures that 'lightmuseg prepare demo' fetched.
        tile_mpp: um/px of the tiles.
    """
    target = Path(output).resolve()
    coded = target.with_name(f"{target.name}-source")
    trained = _bcss_region(Path(source) / "bcss", TRAINED_ON, "masks", "bcss", coded)
    held_out = _bcss_region(Path(source) / "bcss", HELD_OUT, "tumor_masks", "tumor", coded)
    width, height = image_size(held_out.image)
    third = width // 3
    cuts = [
        *(Cut(region, "train") for region in (trained, *_camelyon(Path(source) / "camelyon", coded))),
        *(Cut(_demo_region(Path(demo), name), "train", BOXES["train"]) for name in DEMO_FIELDS),
        Cut(held_out, "val", (0, 0, third, height)),
        Cut(held_out, "test", (third, 0, width - third, height)),
    ]
    options = {"dataset": "reference", "trained_on": TRAINED_ON, "held_out": HELD_OUT, "tile_mpp": tile_mpp}
    tiles = write_dataset(cuts, target, options, Tiling(mpp=tile_mpp))["tiles"]
    print(
        f"{output}: " + ", ".join(f"{sum(t['split'] == s for t in tiles)} {s} tiles" for s in ("train", "val", "test"))
    )


def _bcss_region(folder: Path, patient: str, masks: str, coding: str, coded: Path) -> Region:
    """The patient's region with its mask in BCSS codes."""
    found = [region for region in find_regions(folder, masks, images=False) if region.patient == patient]
    if len(found) != 1:
        raise InputError(f"{folder / masks}: holds {len(found)} masks of {patient}; one is needed.")
    image = files_by_stem(folder / "rgbs").get(found[0].name)
    if image is None:
        raise InputError(f"{folder / 'rgbs'}: has no picture {found[0].name}; add it.")
    mask = _write_png(coded / f"{found[0].name}_mask.png", read_mask(found[0].mask, coding))
    return Region(found[0].name, patient, image, mask, found[0].x0, found[0].y0, found[0].mpp)


def _camelyon(folder: Path, coded: Path) -> list[Region]:
    """The tiles, each a region; whose they are is not known, so each counts as a patient."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it is to hold images/ and masks/ of 512 x 512 pixels.")
    masks = files_by_stem(folder / "masks")
    regions = []
    for stem, image in files_by_stem(folder / "images").items():
        if stem not in masks:
            raise InputError(f"{image}: has no mask in {folder / 'masks'}; add it or take the image away.")
        name = f"camelyon_{stem}"
        codes = np.where(read_codes(masks[stem]) > 0, CODES["tumor"], CODES["other"]).astype(np.uint8)
        mask = _write_png(coded / f"{name}_mask.png", codes)
        regions.append(Region(name, name, image, mask, None, None, CAMELYON_MPP))
    return regions


def _demo_region(folder: Path, name: str) -> Region:
    image, mask = folder / f"{name}.jpg", folder / f"{name}_labels.png"
    if not mask.is_file():
        raise InputError(f"{mask}: is not there; run 'lightmuseg prepare demo' first, or name its folder with --demo.")
    return Region(name, "histolytics-hgsc", image, mask, 0, 0, MPP)


def _write_png(path: Path, pixels: np.ndarray) -> Path:
    if not path.is_file():
        write_whole(path, lambda temporary: Image.fromarray(pixels).save(temporary))
    return path


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(make)
