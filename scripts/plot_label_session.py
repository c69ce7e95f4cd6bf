"""A session of active learning as a picture: the network's answer, where it is unsure, what is drawn, what it learns.

python scripts/plot_label_session.py --server http://127.0.0.1:8000 --image roi --truth roi.geojson --output session.png
    [--region 600,300,2048,1536] [--max_epochs 10] [--learning_rate 0.0003]

The server's folder holds the image. TRUTH is a GeoJSON of its tumor, of which the region is submitted as an annotator
would draw it. Every step is a request that QuPath sends too.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import fire
import matplotlib.pyplot as plt
import numpy as np
import requests
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.files import write_whole
from lightmuseg.wsi.readers.opening import open_slide

# um/px to show at
MPP = 1.0


class Client:
    """Requests to a server, whose refusals are the user's faults."""

    def __init__(self, server: str) -> None:
        self.server = server.rstrip("/")

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = requests.request(method, self.server + path, timeout=600, **options)
        except requests.RequestException as error:
            raise InputError(
                f"{self.server}: does not answer; start it by bash scripts/label.sh STUDIES_DIR."
            ) from error
        if answer.status_code != 200:
            raise InputError(f"{self.server}{path}: {answer.text[:200]}")
        return answer.json()

    def train(self, **options: Any) -> dict[str, Any]:
        task = self("POST", "/train/tumor", json=options)["id"]
        while True:
            (found,) = [one for one in self("GET", "/train/?all=true") if one["id"] == task]
            if found["status"] not in ("SUBMITTED", "RUNNING"):
                if found["status"] != "DONE":
                    raise InputError(f"training ended as {found['status']}: {found['details'][-1]}")
                return found
            time.sleep(1)

    def scores(self, image: str, weights: str) -> dict[str, Any]:
        while True:
            found = self("GET", f"/datastore/image/info?image={image}").get("entropy", {})
            if found.get("weights_sha256") == weights:
                return found
            time.sleep(1)


def plot(
    server: str, image: str, truth: str, output: str, region: tuple[int, ...] = (600, 300, 2048, 1536),
    max_epochs: int = 10, learning_rate: float = 3e-4,
) -> None:  # fmt: skip
    """See the top of the file."""
    ask = Client(server)
    x, y, width, height = region
    wanted = {"location": [x, y], "size": [width, height]}
    answered = ask("POST", f"/infer/wsi/tumor?image={image}&output=json", json=wanted)
    scores = ask.scores(image, answered["weights_sha256"])
    patch = ask("POST", "/activelearning/patch", json={"image": image})["bbox"]
    content = json.loads(Path(truth).read_text(encoding="utf-8"))
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    drawn = {"type": "Polygon", "coordinates": [corners]}
    content["features"].append({"type": "Feature", "geometry": drawn, "properties": {"classification": "Region*"}})
    files = {"label": (f"{image}.geojson", json.dumps(content))}
    ask("PUT", f"/datastore/label?image={image}&tag=final", files=files)
    ask.train(max_epochs=max_epochs, learning_rate=learning_rate)
    version = ask("GET", "/info/")["train_stats"]["tumor"]["versions"][-1]
    after = ask("POST", f"/infer/wsi/tumor?image={image}&output=json", json=wanted)
    with open_slide(Path(ask("GET", f"/datastore/image/info?image={image}")["path"])) as reader:
        level0 = reader.levels[0]
        pixels = reader.read(0, 0, 0, level0.width, level0.height)

    step = max(1, round(MPP / reader.mpp))
    figure, axes = plt.subplots(2, 2, figsize=(12, 12 * level0.height / level0.width + 0.8), layout="constrained")
    used = "in use" if version["in_use"] else "kept beside"
    titles = (
        "1. Annotations: what the network calls tumor in the rectangle",
        "2. Next Sample/ROI: where it is unsure, and where to go",
        "3. Submit Label: what the annotator drew in Region*",
        f"4. Training: Dice held out {version['dice_before']:.2f} before, {version['dice']:.2f} after; {used}",
    )
    for axis, title in zip(axes.flat, titles):
        axis.imshow(pixels[::step, ::step], extent=(0, level0.width, level0.height, 0))
        axis.set_title(title, loc="left", fontsize=10)
        axis.axis("off")
    for axis, features in ((axes[0, 0], answered["features"]), (axes[1, 0], content["features"][:-1]),
                           (axes[1, 1], after["features"])):  # fmt: skip
        _outline(axis, features, "#dc2626")
        axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="black", linewidth=1.5, linestyle="--"))
    _heat(figure, axes[0, 1], scores["patches"], patch)
    write_whole(output, lambda temporary: figure.savefig(temporary, dpi=90))


def _outline(axis: plt.Axes, features: list[dict[str, Any]], colour: str) -> None:
    rings = []
    for feature in features:
        coordinates = feature["geometry"]["coordinates"]
        rings += coordinates if feature["geometry"]["type"] == "Polygon" else [r for part in coordinates for r in part]
    axis.add_collection(LineCollection([np.asarray(ring)[:, :2] for ring in rings], colors=colour, linewidths=1.2))


def _heat(figure: plt.Figure, axis: plt.Axes, patches: list[list[float]], chosen: list[float]) -> None:
    scale = Normalize(0, max(patch[4] for patch in patches))
    colours = plt.get_cmap("inferno")
    for x, y, width, height, score in patches:
        axis.add_patch(Rectangle((x, y), width, height, color=colours(scale(score)), alpha=0.55, linewidth=0))
    x, y, width, height = chosen
    axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="#00e5ff", linewidth=3))
    bar = figure.colorbar(plt.cm.ScalarMappable(scale, colours), ax=axis, shrink=0.8)
    bar.set_label("mean predictive entropy of a patch, 0 to 1")


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(plot)
