"""One slide by LazySlide's engine with our network plugged in: SLIDE NETWORK OUTPUT {"overlap": 0.25}.

NETWORK is TorchScript, uint8 [B, H, W, 3] to logits at half the size.
"""

from __future__ import annotations

from pathlib import Path

from watch import arguments, declare_torchvision, threads, watched

declare_torchvision()
import lazyslide  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lazyslide_models.base import SegmentationOutput  # noqa: E402
from wsidata import open_wsi  # noqa: E402


class Network:
    """Our network as LazySlide takes one."""

    def __init__(self, path: str) -> None:
        self.network = torch.jit.load(path).eval()

    def to(self, device: str) -> None:
        """Nothing: it stays on the CPU."""

    def segment(self, images: torch.Tensor) -> SegmentationOutput:
        """Probabilities of both classes at the tiles' size."""
        tumor = torch.sigmoid(torch.nn.functional.interpolate(self.network(images), scale_factor=2, mode="bilinear"))
        return SegmentationOutput(probability_map=torch.cat([1 - tumor, tumor], dim=1))


slide, model, output, options = arguments()
torch.set_num_threads(threads())
Path(output).mkdir(parents=True)
target = Path(output) / "regions.geojson"
with watched() as facts:
    wsi = open_wsi(slide)
    lazyslide.pp.find_tissues(wsi)
    lazyslide.pp.tile_tissues(wsi, 512, overlap=options["overlap"], mpp=0.25)
    lazyslide.seg.semantic(
        wsi, Network(model), transform=lambda image: torch.from_numpy(np.ascontiguousarray(image)), batch_size=4,
        num_workers=0, device="cpu", class_names=["other", "tumor"], pbar=False,
    )  # fmt: skip
    wsi["anatomical_structures"].to_file(target, driver="GeoJSON")
    facts |= {"map": str(target), "tiles": len(wsi["tiles"])}
