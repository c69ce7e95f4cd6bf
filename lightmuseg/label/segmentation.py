"""MONAI Label's task of inference."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from PIL import Image

from lightmuseg.areas.annotations import to_geojson, write_asap, write_dsa
from lightmuseg.progress import SlideBars

from .bundle_network import BundleNetwork
from .prediction import predicted
from .request_checks import SegmentationRequest

WRITERS = {"asap": (".xml", write_asap), "dsa": (".json", write_dsa)}


class Segmentation(InferTask):
    """Segment a picture, a slide or a region of it.

    Args:
        current: gives the network in use.
    """

    def __init__(self, current: Callable[[], BundleNetwork]) -> None:
        names = current().class_names
        super().__init__(
            InferType.SEGMENTATION, {name: index for index, name in enumerate(names, start=1)}, 2,
            f"LightMuSeg: {', '.join(names)} in H&E", {"label_extension": ".png", "label_tag": "original"},
        )  # fmt: skip
        self._current = current

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        return {**super().info(), **self._current().describe()}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment ``request["image"]``, a file; for what else it may hold see :class:`SegmentationRequest`.

        Returns:
            The path of a new file, and plain values: a GeoJSON FeatureCollection with the run's facts.
        """
        started = time.monotonic()
        network, wanted = self._current(), SegmentationRequest.of(request)
        path = Path(request["image"])
        progress = partial(SlideBars(), path)
        with predicted(path, network, wanted.location, wanted.size, wanted.level, progress) as prediction:
            annotations = list(prediction.annotations(wanted.min_poly_area))
            box = prediction.box
            facts = {
                **network.describe(), "label_names": self.labels, "location": [box.x0, box.y0],
                "size": [box.width0, box.height0], "unread_tiles": prediction.unread_tiles,
                "picture": prediction.picture,
            }  # fmt: skip
            ending, write = WRITERS.get(wanted.output, (".png", None))
            handle, name = tempfile.mkstemp(suffix=ending)
            os.close(handle)
            if write is not None:
                write(Path(name), annotations, network.class_names, f"LightMuSeg {network.sha256[:8]}")
            else:
                Image.fromarray(prediction.image()).save(name)
        facts["seconds"] = round(time.monotonic() - started, 2)
        return name, {**to_geojson(annotations, network.class_names), **facts}
