"""Commands on slides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.files import is_file
from lightmuseg.process import keep_heap_small, load_light_monai

from .arguments import given, takes_options_of

OUTPUT = "lightmuseg_results"


def segment_options(
    model: str = "",
    bundle: str = "",
    override: str = "",
    mpp: float | None = None,
    series: int | None = None,
    output_mpp: float | None = None,
    overlap: float | None = None,
    batch_size: int | None = None,
    tissue_mask: bool | None = None,
    region: str = "",
    backend: str = "",
    read_device: str = "",
    workers: int | None = None,
    device: str = "",
    runtime: str = "",
    ome: bool | None = None,
    probabilities: bool | None = None,
    dicom_seg: bool | None = None,
    tolerance: float | None = None,
) -> tuple[Path | None, Path | None, dict[str, Any]]:
    """The bundle, the override and the values, of options that all commands on slides have.

    What is not given is as the package, or the config of BUNDLE, has it; --no-NAME turns a switch off that one of them
    turns on.

    Args:
        model: the model.pt of a training, or a name of 'lightmuseg models'; by default tumor; tissue has four
            classes. It says itself which classes, network and um/px it has.
        bundle: folder of a bundle whose inference_wsi.json decides what is not given here.
        override: a config that changes inference_wsi.json, such as one that declares a network of your own.
        mpp: um per pixel of the slides; by default what their files say.
        series: number of the picture to take in a TIFF of several, counted from 0; by default the largest that is no
            label, macro or thumbnail.
        output_mpp: um per pixel of the map, 1, 2, 4 ... 64 times the model's; by default twice.
        overlap: share of a tile that neighbours have in common, 0 to 0.5; by default 0.125.
        batch_size: tiles to the network at once.
        tissue_mask: segment tissue only, the default; --no-tissue-mask takes the whole slide.
        region: segment only x,y,width,height in level-0 pixels, or the polygons of a GeoJSON file.
        backend: auto, cucim, openslide, tifffile, dicom or image.
        read_device: cuda decodes the slides' JPEG on a GPU.
        workers: threads that read.
        device: of the network, such as cuda:0 or cpu.
        runtime: torch, torch_compile, openvino, openvino_bf16, openvino_int8, onnx or tensorrt; auto for the fastest
            that passes the proof. By default openvino_bf16, openvino or torch on a CPU, torch on a GPU: the first that
            can be used and passes.
        ome: write classes.ome.tif instead of classes.tif.
        probabilities: also write probabilities.zarr.
        dicom_seg: also write classes.dcm, a DICOM segmentation; for slides in DICOM.
        tolerance: um by which regions.geojson may differ from the map.
    """
    values = given(
        checkpoint=Path(model) if is_file(model) else model or None, slide_mpp=mpp, series=series,
        output_mpp=output_mpp, overlap=overlap,
        batch_size=batch_size, region=Path(region) if is_file(region) else region or None, backend=backend or None,
        read_device=read_device or None, workers=workers, device=device or None, runtime=runtime or None,
        tolerance=tolerance, tissue_mask=tissue_mask, ome=ome, probabilities=probabilities, dicom_seg=dicom_seg,
    )  # fmt: skip
    return Path(bundle) if bundle else None, Path(override) if override else None, values


@takes_options_of(segment_options)
def segment(
    *slides: str, output: str = OUTPUT, resume: bool | None = None, changed: bool | None = None, **options: Any
) -> None:
    """Segment slides or images: maps, regions, overlay and measurements of each in OUTPUT/<name of the slide>/.

    Args:
        slides: SVS, TIFF and other slides, DICOM files or folders, PNG or JPEG images.
        output: folder of the folders of results, and of report.csv; by default lightmuseg_results.
        resume: go on with slides that were interrupted, leave out those that are done, do broken results again.
        changed: with --resume do slides again whose file changed since; the former results are kept as .NAME.kept-1.
    """
    if not slides:
        raise InputError("lightmuseg segment: no slide is given; name at least one.")
    bundle, override, values = segment_options(**options)
    values |= given(output_dir=Path(output), resume=resume, changed=changed)
    load_light_monai()
    from lightmuseg.progress import SlideBars
    from lightmuseg.slides.bundle_config import make_segmenter

    segmenter = make_segmenter(values, bundle, [override] if override else [])
    if not segmenter.runtime(slides).info.is_torch_on_cpu:
        keep_heap_small()
    segmenter.run(slides, SlideBars())
    print(f"{output}: {', '.join(sorted(path.name for path in Path(output).iterdir() if path.name[0] != '.'))}")


def quantize(
    dataset: str, model: str = "tumor", max_drop: float | None = None, output_mpp: float | None = None
) -> None:
    """Make the model in INT8 for --runtime openvino_int8, beside its weights, and print what its Dice loses.

    Args:
        dataset: what 'lightmuseg prepare' wrote; INT8 is calibrated on its training tiles, controlled on its
            training and validation tiles, and measured on its test tiles.
        model: the model.pt of a training, or a name of 'lightmuseg models'.
        max_drop: Dice that may be lost on the tiles that control, 0 to 1; by default 0.002.
        output_mpp: um per pixel of the maps that it will make; by default twice the model's.
    """
    from lightmuseg.runtimes.quantization import quantize_model

    print(quantize_model(model, Path(dataset), **given(max_drop=max_drop, output_mpp=output_mpp)))
