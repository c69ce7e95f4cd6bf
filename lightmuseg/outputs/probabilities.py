"""The probabilities as a Zarr that napari, OME readers and zarr open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightmuseg.classes import channels_of, palette_of
from lightmuseg.errors import InputError

from .segmented import SegmentedSlide

CHUNK = 512


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write probabilities as an OME-Zarr 0.5 (Zarr 3) of one level, uint8 [C, height, width]; 255 is probability 1.

    The array's ``scale_factor`` says so too, as the CF conventions have it; xarray heeds it. Chunks of zeros have no
    file. Several classes have everything else as their first channel. What is there under that name is replaced. Memory
    holds one row of chunks of all channels.

    Raises:
        InputError: where zarr is not installed.

    References:
        https://ngff.openmicroscopy.org/0.5/
        https://cfconventions.org/, section 8.1, packed data.
    """
    try:
        import zarr
        from zarr.codecs import ZstdCodec
    except ImportError as error:
        raise InputError(f"{path}: needs zarr 3 (Python 3.11 or later); pip install 'lightmuseg[slides]'.") from error

    class_map = slide.class_map
    names = class_map.class_names
    channels = list(zip(["other", *names], palette_of(names)))[-channels_of(names) :]
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs["ome"] = _ome_metadata(path.stem, channels, class_map.mpp)
    array = root.create_array(
        "0",
        shape=(len(channels), class_map.height, class_map.width),
        chunks=(1, CHUNK, CHUNK),
        dtype="uint8",
        fill_value=0,
        compressors=ZstdCodec(level=3),
        dimension_names=("c", "y", "x"),
        attributes={"long_name": "probability", "scale_factor": 1 / 255},
    )
    top = 0
    for band in class_map.probability_bands(CHUNK):
        array[:, top : top + band.shape[1]] = band
        top += band.shape[1]


def _ome_metadata(name: str, channels: list[tuple[str, tuple[int, int, int]]], mpp: float) -> dict[str, Any]:
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
    scale = [{"type": "scale", "scale": [1.0, mpp, mpp]}]
    multiscale = {"name": name, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    shown = [
        {"label": label, "color": bytes(colour).hex().upper(), "window": window, "active": True}
        for label, colour in channels
    ]
    return {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": shown}}
