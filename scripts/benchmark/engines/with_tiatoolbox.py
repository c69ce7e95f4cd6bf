"""One slide by TIAToolbox's engine with our network plugged in: SLIDE NETWORK OUTPUT {"overlap": 0.25}.

NETWORK is TorchScript, uint8 [B, H, W, 3] to logits at half the size.
"""

from __future__ import annotations

from watch import arguments, declare_torchvision, threads, watched

declare_torchvision()
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tiatoolbox.models import IOSegmentorConfig  # noqa: E402
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor  # noqa: E402
from tiatoolbox.models.models_abc import ModelABC  # noqa: E402


class Network(ModelABC):
    """Our network as TIAToolbox takes one; counts its tiles."""

    tiles = 0

    def __init__(self, path: str) -> None:
        super().__init__()
        self.network = torch.jit.load(path).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of tiles."""
        return self.network(images)

    @staticmethod
    def infer_batch(model: Network, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """Probabilities of both classes, [B, h, w, 2]."""
        Network.tiles += len(batch_data)
        with torch.inference_mode():
            tumor = torch.sigmoid(model(batch_data.to(torch.uint8))).permute(0, 2, 3, 1)
            return torch.cat([1 - tumor, tumor], dim=3).numpy()

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        """Classes of a map."""
        return image.argmax(axis=-1)


slide, model, output, options = arguments()
torch.set_num_threads(threads())
step = round(512 * (1 - options["overlap"]))
with watched() as facts:
    engine = SemanticSegmentor(model=Network(model), batch_size=4, num_workers=0, device="cpu", verbose=False)
    config = IOSegmentorConfig(
        input_resolutions=[{"units": "mpp", "resolution": 0.25}],
        output_resolutions=[{"units": "mpp", "resolution": 0.5}],
        save_resolution={"units": "mpp", "resolution": 0.5},
        patch_input_shape=(512, 512), patch_output_shape=(256, 256), stride_shape=(step, step),
    )  # fmt: skip
    made = engine.run([slide], patch_mode=False, ioconfig=config, save_dir=output, output_type="zarr", device="cpu")
    facts |= {"map": str(next(iter(made.values())) if isinstance(made, dict) else made), "tiles": Network.tiles}
