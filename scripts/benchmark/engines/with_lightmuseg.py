"""One slide as 'lightmuseg segment' does it: SLIDE MODEL OUTPUT {"option": value}; "free" costs no network."""

from __future__ import annotations

import torch
from watch import arguments, threads, watched

from lightmuseg import Segmenter
from lightmuseg.process import keep_heap_small, load_light_monai


class Free(torch.nn.Module):
    """Logits of squares of 32 pixels, by their first pixel's green."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] to [B, 1, H / 2, W / 2]."""
        return torch.nn.functional.interpolate(-x[:, 1:2, ::32, ::32], scale_factor=16)


slide, model, output, options = arguments()
torch.set_num_threads(threads())
load_light_monai()
with watched() as facts:
    if options.pop("free", False):
        from lightmuseg.runtimes.openvino import openvino_runtime

        options["runtime"] = openvino_runtime(Free(), 512, "float32", torch.nn.Module.eval)
    segmenter = Segmenter(model, **options)
    if not segmenter.runtime([slide]).info.is_torch_on_cpu:
        keep_heap_small()
    result = segmenter(slide, output)
    record = result.record
    runtime = " ".join(str(record["model"][name]) for name in ("runtime", "precision"))
    facts |= {"tiles": record["tiles"], "stages s": record["seconds"], "runtime": runtime}
    facts["map"] = str(result.folder / "classes.tif")
