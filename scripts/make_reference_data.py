"""The dataset that the released models learn from, of openly licensed pictures, at one um/px.

python scripts/make_reference_data.py DATA OUTPUT [--mpp 0.5] [--hold_out TCGA-A2-A1G6] [--demo bundle/data/demo-source]

DATA holds bcss/, bcss_05um/, camelyon/, brecahad/ and slides/; the demo's pictures are those of 'lightmuseg prepare
demo'. By source:

- bcss: A0D2 and A1G6 at 0.30 um/px and AA15 at 0.5 (masks CC0; AA15's picture from TCGA). A0D2 and AA15 have official
  BCSS codes; of A1G6 is known what is tumor and what is not.
- camelyon: 32 tiles of lymph nodes at 0.5 um/px (CC0), tumor or not; each counts as a patient.
- brecahad: 27 fields of three patients at 0.22 um/px (CC BY 4.0, Aksac et al. 2019); tumor, stroma and fat derived from
  nuclei, else unknown.
- histolytics: two fields of ovarian carcinoma at 0.25 um/px (BSD-3), but for what the demo tests on; derived likewise.
- glass: places of CMU-1-Small-Region (CC0) and TCGA-CR-7395 (TCGA) that hold glass alone.

Where only is known that a pixel is not tumor, its code is "not_tumor". Training: all but the patients of --hold_out,
who are the split test. AA10 is the split val, for the record alone: nothing is to be chosen by it (keep=last), and
nothing that is released learns from it, as its labels come by way of a non-commercial release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import fire
import numpy as np
from PIL import Image

from lightmuseg.data.bcss import CODES, MASK_CODINGS, Region, find_regions
from lightmuseg.data.demo import BOXES
from lightmuseg.data.tiles import Cut, Tiling, write_dataset
from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.files import write_whole
from lightmuseg.wsi.images import files_by_stem, read_codes
from lightmuseg.wsi.readers.opening import open_slide

OFFICIAL = MASK_CODINGS["bcss"]
TUMOR_OR_NOT = MASK_CODINGS["tumor"]
BRECAHAD = {1: CODES["tumor"], 2: CODES["stroma"], 9: CODES["fat"], 255: CODES["outside_roi"]}
AA15 = OFFICIAL | {255: CODES["outside_roi"]}
AA10 = {1: CODES["tumor"], 254: CODES["not_tumor"], 255: CODES["outside_roi"]}
# um/px in truth; BCSS's names say 0.25
BCSS_MPP, MOSAIC_MPP, CAMELYON_MPP, BRECAHAD_MPP, DEMO_MPP = 0.30, 0.5, 0.5, 0.22, 0.25
DEMO_FIELDS = ("hgsc_nest", "hgsc_stromal_he")
# Level-0 boxes (x, y, width, height) that hold glass alone. All else of CMU-1, the glass to the right above all, stays
# unseen: it is what "no tumor on glass" is tested on. TCGA-CR-7395 says no um/px, which glass does not need.
GLASS = {
    "CMU-1-Small-Region": [(0, 1250, 500, 1650)],
    "TCGA-CR-7395-01A-01-TS1": [
        (400, 520, 200, 200), (4060, 1150, 380, 420), (30, 1110, 200, 320), (400, 2600, 200, 200)
    ],
}  # fmt: skip
GLASS_MPP = 0.5
# of neighbouring tiles, so that training sees each place in several surroundings
TRAIN_OVERLAP = 0.5


def make(
    data: str, output: str, mpp: float = 0.5, hold_out: str = "", tile_size: int = 512,
    demo: str = "bundle/data/demo-source",
) -> None:  # fmt: skip
    """Write the prepared dataset, or nothing where it is there already.

    Args:
        data: folder of the pictures.
        output: the dataset's folder; OUTPUT-source gets the pictures and masks that had to be made.
        mpp: um/px of the tiles.
        hold_out: patients for test, such as TCGA-A2-A1G6, with commas between.
        tile_size: side of a tile in pixels.
        demo: the pictures that 'lightmuseg prepare demo' fetched.
    """
    folder, target = Path(data), Path(output).resolve()
    made = target.with_name(f"{target.name}-source")
    regions = [
        *_bcss(folder / "bcss", made),
        _mosaic(folder / "bcss_05um", "AA15", AA15, made),
        *_pictures(folder / "camelyon", "camelyon", TUMOR_OR_NOT, CAMELYON_MPP, made),
        *_pictures(folder / "brecahad", "brecahad", BRECAHAD, BRECAHAD_MPP, made),
        *(_demo_field(Path(demo), name) for name in DEMO_FIELDS),
        *_glass(folder / "slides", made),
    ]
    held_out = [name.strip() for name in hold_out.split(",") if name.strip()]
    patients = sorted({region.patient for region in regions})
    for name in held_out:
        if name not in patients:
            raise InputError(f"--hold_out {name}: no patient of this name; there are {', '.join(patients)}.")
    cuts = [
        Cut(region, "test") if region.patient in held_out else Cut(region, "train", _box_of(region), TRAIN_OVERLAP)
        for region in regions
    ]
    cuts.append(Cut(_mosaic(folder / "bcss_05um", "AA10", AA10, made), "val"))
    options = {"dataset": "reference", "hold_out": sorted(held_out), "mpp": mpp, "tile_size": tile_size}
    tiling = Tiling(tile_size, min_annotated=0.02, mask_coding="codes", mpp=mpp)
    tiles = write_dataset(cuts, target, options, tiling)["tiles"]
    print(
        f"{output}: " + ", ".join(f"{sum(t['split'] == s for t in tiles)} {s} tiles" for s in ("train", "val", "test"))
    )


def _bcss(folder: Path, made: Path) -> list[Region]:
    """A0D2 with its official mask, A1G6 with its mask of tumor."""
    regions = []
    for patient, masks, table in ("A0D2", "masks", OFFICIAL), ("A1G6", "tumor_masks", TUMOR_OR_NOT):
        found = [region for region in find_regions(folder, masks, False, BCSS_MPP) if region.patient.endswith(patient)]
        if len(found) != 1:
            raise InputError(f"{folder / masks}: holds {len(found)} masks of {patient}; one is needed.")
        image = files_by_stem(folder / "rgbs").get(found[0].name)
        if image is None:
            raise InputError(f"{folder / 'rgbs'}: has no picture {found[0].name}; add it.")
        mask = _recoded(found[0].mask, table, made / f"{found[0].name}_mask.png")
        regions.append(replace(found[0], image=image, mask=mask, source="bcss"))
    return regions


def _mosaic(folder: Path, patient: str, table: Mapping[int, int], made: Path) -> Region:
    """Fields of a patient at 0.5 um/px, pasted together."""
    image, mask = (folder / f"{patient}_mosaic_{kind}.png" for kind in ("rgb", "mask"))
    mask = _recoded(mask, table, made / f"{patient}_mask.png")
    return Region(f"{patient}_mosaic", f"TCGA-S3-{patient}", image, mask, None, None, MOSAIC_MPP, source="bcss")


def _pictures(folder: Path, source: str, table: Mapping[int, int], mpp: float, made: Path) -> list[Region]:
    """Images with masks of the same stems; BreCaHAD's stems begin with the patient."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it is to hold images/ and masks/.")
    masks = files_by_stem(folder / "masks")
    regions = []
    for stem, image in files_by_stem(folder / "images").items():
        if stem not in masks:
            raise InputError(f"{image}: has no mask in {folder / 'masks'}; add it or take the image away.")
        name, patient = f"{source}_{stem}", f"{source}_{stem.split('-')[0]}"
        mask = _recoded(masks[stem], table, made / f"{name}_mask.png")
        regions.append(Region(name, patient, image, mask, None, None, mpp, source=source))
    return regions


def _demo_field(folder: Path, name: str) -> Region:
    image, mask = folder / f"{name}.jpg", folder / f"{name}_labels.png"
    if not mask.is_file():
        raise InputError(f"{mask}: is not there; run 'lightmuseg prepare demo' first, or name its folder with --demo.")
    return Region(name, "histolytics-hgsc", image, mask, None, None, DEMO_MPP, source="histolytics")


def _box_of(region: Region) -> tuple[int, int, int, int] | None:
    """What may be trained on: not what the demo validates and tests on."""
    return BOXES["train"] if region.source == "histolytics" else None


def _glass(folder: Path, made: Path) -> list[Region]:
    regions = []
    for stem, boxes in GLASS.items():
        for number, (x0, y0, width, height) in enumerate(boxes):
            name = f"glass_{stem}_{number}"
            if not (made / f"{name}.png").is_file():
                with open_slide(folder / f"{stem}.svs", mpp=GLASS_MPP) as slide:
                    _written(made / f"{name}.png", slide.read(0, x0, y0, width, height))
            mask = _written(made / f"{name}_mask.png", np.full((height, width), CODES["other"], np.uint8))
            regions.append(
                Region(name, f"glass_{stem}", made / f"{name}.png", mask, None, None, GLASS_MPP, source="glass")
            )
    return regions


def _recoded(mask: Path, table: Mapping[int, int], target: Path) -> Path:
    """A mask's values as codes of a prepared dataset, in ``target``."""
    values = read_codes(mask)
    unknown = sorted(set(np.unique(values).tolist()) - set(table))
    if unknown:
        raise InputError(f"{mask}: holds the value {unknown[0]}; known are {', '.join(map(str, table))}.")
    lookup = np.zeros(256, np.uint8)
    lookup[list(table)] = list(table.values())
    return _written(target, lookup[values])


def _written(path: Path, pixels: np.ndarray) -> Path:
    if not path.is_file():
        write_whole(path, lambda temporary: Image.fromarray(pixels).save(temporary))
    return path


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(make)
