"""A small set in BCSS-WSSS's exact layout from regions of BCSS, to try weak supervision on.

python scripts/make_bcss_wsss.py SOURCE OUTPUT [--masks masks] [--mask_coding bcss]
python scripts/make_bcss_wsss.py BCSS bundle/data/weak-source

Regions without a mask are left out. Each region is cut into patches of 224 x 224; those with a pixel of the four
classes go at random, the same at every run, to training (70%), val and test (15% each), so that patients cross the
splits as they do in the published set. A training patch's name ends in the classes its true mask holds, [abcd]. Its
pseudo-label is not its true mask: before the cut the region's mask is distorted by smooth random shifts of 24 pixels
(standard deviation, every 64 pixels), which moves every boundary, also into patches whose label denies the class.
"""

from __future__ import annotations

from pathlib import Path

import fire
import numpy as np
import torch
from PIL import Image

from lightmuseg.data.bcss import MASK_CODINGS, PALETTE, find_regions, read_mask
from lightmuseg.data.bcss_wsss import LABEL_CODES, PATCH_SIZE, PSEUDO_LABELS
from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.files import whole_folder
from lightmuseg.wsi.images import IMAGE_SUFFIXES, files_by_stem, read_rgb

SEED = 42
SHARES = {"training": 0.7, "val": 0.15, "test": 0.15}
SHIFT, SPACING = 24, 64
BACKGROUND = len(LABEL_CODES)


def make(source: str, output: str, masks: str = "masks", mask_coding: str = "bcss") -> None:
    """Write the set from the regions in SOURCE that have an image and a mask.

    Args:
        source: a BCSS folder.
        output: a new folder.
        masks: name of the folder of masks in SOURCE.
        mask_coding: of these masks, as for 'lightmuseg prepare bcss'.
    """
    if mask_coding not in MASK_CODINGS:
        raise InputError(f"--mask_coding {mask_coding} is not known; one of {', '.join(MASK_CODINGS)}.")
    target = Path(output)
    if target.exists():
        raise InputError(f"{target}: is there already; choose another OUTPUT.")
    images = {stem: path for folder in Path(source).glob("rgbs*") for stem, path in files_by_stem(folder).items()}
    rng = np.random.default_rng(SEED)
    count = dict.fromkeys(SHARES, 0)
    with whole_folder(target, 1 << 20) as folder:
        for name in ("training", PSEUDO_LABELS, "val/img", "val/mask", "test/img", "test/mask"):
            (folder / name).mkdir(parents=True)
        for region in find_regions(Path(source), masks, images=False):
            if region.name in images:
                truth = _values(read_mask(region.mask, mask_coding))
                _write_region(folder, region.name, read_rgb(images[region.name]), truth, rng, count)
        if not all(count.values()):
            raise InputError(f"{source}: too few images with a mask in {masks}/ ({', '.join(IMAGE_SUFFIXES)}).")
    print(f"{output}: " + ", ".join(f"{number} {split} patches" for split, number in count.items()))


def _values(codes: np.ndarray) -> np.ndarray:
    """BCSS codes as BCSS-WSSS's mask values: 0 to 3 are the classes, 4 is all else."""
    table = np.full(256, BACKGROUND, np.uint8)
    table[list(LABEL_CODES)] = range(len(LABEL_CODES))
    return table[codes]


def _distorted(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values [H, W], each taken from where a smooth field of random shifts points."""
    grid = [length // SPACING + 2 for length in values.shape]
    shifts = torch.from_numpy(rng.normal(0, SHIFT, (1, 2, *grid)))
    fields = torch.nn.functional.interpolate(shifts, values.shape, mode="bicubic")[0].numpy()
    places = [
        (at + field).round().astype(int).clip(0, length - 1)
        for at, field, length in zip(np.ogrid[: values.shape[0], : values.shape[1]], fields, values.shape)
    ]
    return values[tuple(places)]


def _write_region(
    folder: Path, name: str, image: np.ndarray, truth: np.ndarray, rng: np.random.Generator, count: dict[str, int]
) -> None:
    pseudo = _distorted(truth, rng)
    height, width = (length // PATCH_SIZE for length in truth.shape)
    places = [
        (slice(row * PATCH_SIZE, (row + 1) * PATCH_SIZE), slice(column * PATCH_SIZE, (column + 1) * PATCH_SIZE))
        for row in range(height)
        for column in range(width)
    ]
    places = [place for place in places if (truth[place] < BACKGROUND).any()]
    bounds = np.round(np.cumsum(list(SHARES.values())) * len(places)).astype(int)
    for split, part in zip(SHARES, np.split(rng.permutation(len(places)), bounds[:-1])):
        for index, number in enumerate(part.tolist()):
            place = places[number]
            if split == "training":
                label = "".join(str(int((truth[place] == value).any())) for value in range(BACKGROUND))
                stem = f"{name}+{index}[{label}].png"
                _save_mask(folder / PSEUDO_LABELS / stem, pseudo[place])
                Image.fromarray(image[place]).save(folder / "training" / stem)
            else:
                stem = f"{name}+{index}.png"
                _save_mask(folder / split / "mask" / stem, truth[place])
                Image.fromarray(image[place]).save(folder / split / "img" / stem)
            count[split] += 1


def _save_mask(path: Path, values: np.ndarray) -> None:
    picture = Image.fromarray(values).convert("P")
    picture.putpalette([channel for colour in PALETTE for channel in colour])
    picture.save(path)


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(make)
