"""MONAI Label's task of inference."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from PIL import Image

from lightmuseg.errors import InputError

from .annotations import Annotation, to_geojson, write_asap, write_dsa
from .bundle_network import BundleNetwork
from .prediction import opened, predicted

WRITERS = {"asap": (".xml", write_asap), "dsa": (".json", write_dsa)}


class Segmentation(InferTask):
    """Segment a picture, a slide or a region of it.

    Args:
        current: gives the network in use.
    """

    def __init__(self, current: Callable[[], BundleNetwork]) -> None:
        network = current()
        labels = {name: index for index, name in enumerate(network.class_names, start=1)}
        super().__init__(
            InferType.SEGMENTATION, labels, 2, f"LightMuSeg: {', '.join(network.class_names)} in H&E",
            {"label_extension": ".png", "label_tag": "original"},
        )  # fmt: skip
        self._current = current

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        return {**super().info(), **self._current().describe()}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment ``request["image"]``, a file.

        Args:
            request: may have ``location``, ``size`` (level-0 pixels), ``level`` (of the label image), ``tile_size``
                (checked only: the engine's tiles overlap and are blended), ``min_poly_area`` (level-0 pixels) and
                ``output``: asap, dsa, json (GeoJSON), or image.

        Returns:
            The path of a new file, and plain values: a GeoJSON FeatureCollection with the run's facts.
        """
        started = time.monotonic()
        network = self._current()
        output = request.get("output") or "image"
        least = request.get("min_poly_area") or 0
        level, tile_size = request.get("level") or 0, request.get("tile_size") or (1, 1)
        if type(level) is not int or type(least) not in (int, float) or least < 0:
            said = f"level {str(level)[:80]}, min_poly_area {str(least)[:80]}"
            raise InputError(f"{said}: give a whole number and one of 0 or more.")
        if not (isinstance(tile_size, (list, tuple)) and all(type(n) is int and n > 0 for n in tile_size)):
            raise InputError(f"tile_size {str(tile_size)[:80]}: give two whole numbers above 0.")
        path = Path(request["image"])
        with opened(path, network) as reader:
            if not 0 <= level < len(reader.levels):
                raise InputError(f"level {level}: the image has levels 0 to {len(reader.levels) - 1}.")
            downsample, picture = reader.levels[level].downsample, reader.picture
        with predicted(path, network, request) as prediction:
            annotations = [Annotation(*one) for one in prediction.polygons(least)]
            box = prediction.box
            facts = {
                **network.describe(),
                "label_names": {name: index for index, name in enumerate(network.class_names, start=1)},
                "location": [box.x0, box.y0], "size": [box.width0, box.height0],
                "unread_tiles": prediction.unread_tiles, "picture": picture,
            }  # fmt: skip
            title = f"LightMuSeg {network.sha256[:8]}"
            ending, write = WRITERS.get(output, (".png", None))
            handle, name = tempfile.mkstemp(suffix=ending)
            os.close(handle)
            if write is not None:
                write(Path(name), annotations, network.class_names, title)
            else:
                Image.fromarray(prediction.image(downsample)).save(name)
        facts["seconds"] = round(time.monotonic() - started, 2)
        return name, {**to_geojson(annotations, network.class_names), **facts}
