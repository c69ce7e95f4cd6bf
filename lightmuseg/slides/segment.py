"""Segment one slide or image in one piece."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.transforms import Compose

from lightmuseg.data.pictures import overlay, save_class_map
from lightmuseg.errors import InputError
from lightmuseg.handlers import WeightsLoader
from lightmuseg.record import environment, sha256_of, whole_folder, write_json

from .reader import read_level0

MAX_PIXELS = 120_000_000
OVERLAY_SIDE = 2000


def segment_slide(slide: Path, output: Path, bundle: Path, model: Path | None = None, mpp: float | None = None) -> Path:
    """Write ``classes.png``, ``overlay.png``, ``areas.csv`` and ``run.json`` of a slide, all or none.

    Args:
        slide: SVS, TIFF, PNG, JPEG or BMP.
        output: the results go into its new folder ``<stem of slide>``.
        bundle: the bundle's root; its inference.json declares network, inferer, classes and um/px.
        model: weights; None for the bundle's ``checkpoint``.
        mpp: um/px of the slide's level 0; None to take it from the file.

    Returns:
        The folder of the results.

    Raises:
        InputError: for a slide, weights or an output that cannot be used.
    """
    folder = output / slide.stem
    if folder.exists():
        raise InputError(f"{folder}: is there already; choose another --output, or delete it.")
    started = time.time()
    config = _config(bundle, model)
    target_mpp, class_names = float(config.get_parsed_content("mpp")), config.get_parsed_content("class_names")
    pixels, mpp = read_level0(slide, mpp, target_mpp, MAX_PIXELS)
    network = config.get_parsed_content("network").eval()
    WeightsLoader(config.get_parsed_content("checkpoint"), network)()
    with whole_folder(folder, pixels.size + (1 << 20)) as partial:
        classes = _classes(pixels, mpp / target_mpp, network, config)
        save_class_map(partial / "classes.png", classes, class_names)
        overlay(pixels, classes, class_names, OVERLAY_SIDE).save(partial / "overlay.png")
        _save_areas(partial / "areas.csv", classes, class_names, mpp)
        record = {
            **environment(),
            "slide": slide.name,
            "slide_sha256": sha256_of(slide),
            "level0_size": [pixels.shape[1], pixels.shape[0]],
            "level0_mpp": mpp,
            "model_mpp": target_mpp,
            "weights_sha256": sha256_of(config.get_parsed_content("checkpoint")),
            "seconds": round(time.time() - started, 1),
        }
        write_json(partial / "run.json", record)
    return folder


def _config(bundle: Path, model: Path | None) -> ConfigParser:
    path = bundle / "configs" / "inference.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the bundle's folder with --bundle.")
    config = ConfigParser()
    config.read_config(path)
    config["bundle_root"] = str(bundle.resolve())
    if model is not None:
        config["checkpoint"] = str(model)
    return config


def _classes(pixels: np.ndarray, scale: float, network: torch.nn.Module, config: ConfigParser) -> np.ndarray:
    """Class indices [H, W] at level 0; ``scale`` is level-0 um/px over the model's."""
    device = config.get_parsed_content("device")
    inferer = config.get_parsed_content("inferer")
    inferer.progress = True

    size0 = pixels.shape[:2]
    size_model = tuple(max(1, round(side * scale)) for side in size0)
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()[None]
    if size_model != size0:
        image = F.interpolate(image, size=size_model, mode="bilinear", antialias=True).clamp_(0, 255)
    image = Compose(config.get_parsed_content("normalising"))({"image": image[0]})["image"].as_tensor()[None]
    with torch.inference_mode():
        logits = inferer(image.to(device, memory_format=torch.channels_last), network).cpu()
        if size_model != size0:
            logits = F.interpolate(logits, size=size0, mode="bilinear", antialias=True)
    if logits.shape[1] == 1:
        return (logits[0, 0] > 0).to(torch.uint8).numpy()
    return logits[0].argmax(dim=0).to(torch.uint8).numpy()


def _save_areas(path: Path, classes: np.ndarray, class_names: Sequence[str], mpp: float) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["class", "pixels", "area_mm2", "share"])
        for index, name in enumerate(["other", *class_names]):
            count = int((classes == index).sum())
            table.writerow([name, count, f"{count * (mpp / 1000) ** 2:.6f}", f"{count / classes.size:.6f}"])
