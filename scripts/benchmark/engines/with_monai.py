"""One slide by MONAI's own parts, WSIReader and SlidingWindowInferer: SLIDE MODEL OUTPUT {"overlap": 0.25}."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import torch
from monai.data import WSIReader
from monai.inferers import SlidingWindowInferer
from watch import arguments, threads, watched

from lightmuseg import Model

slide, model, output, options = arguments()
torch.set_num_threads(threads())
Path(output).mkdir(parents=True)
target = Path(output) / "classes.tif"
with watched() as facts, torch.inference_mode():
    network = Model.open(model).network(output_stride=2)
    reader = WSIReader(backend="cucim", level=0)
    pixels, _ = reader.get_data(reader.read(slide))
    image = torch.from_numpy(np.asarray(pixels)).float()
    del pixels
    # in place, or three copies of the slide in float32 would be there at once
    for channel, mean, deviation in zip(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)):
        channel.div_(255).sub_(mean).div_(deviation)
    inferer = SlidingWindowInferer((512, 512), 4, options["overlap"], mode="gaussian", progress=True)
    classes = (inferer(image[None], network)[0, 0] > 0).byte().numpy()
    tifffile.imwrite(target, classes, tile=(256, 256), compression="zlib")
    facts["map"] = str(target)
