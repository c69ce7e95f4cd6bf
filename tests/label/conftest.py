"""A server of MONAI Label in the environment that scripts/label.sh makes, asked over HTTP alone."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
import requests
import tifffile
from filelock import FileLock
from PIL import Image

ROI = "TCGA-A2-A1G6-DX1_xmin57706_ymin69514_MPP-0.2500.png"
SVS = "CMU-1-Small-Region"
# level-0 pixels of the pyramid where the annotator works: x, y, width, height
WORKED = (600, 300, 1536, 1024)


class Server:
    """A running server: requests by path, and waiting for what goes on in the background."""

    def __init__(self, port, process, studies):
        self.address, self.process, self.studies = f"http://127.0.0.1:{port}", process, studies

    def __call__(self, method, path, **options):
        return requests.request(method, self.address + path, timeout=600, **options)

    @staticmethod
    def wait(ask, seconds):
        """What ``ask`` gives as soon as it is not None."""
        return wait(ask, seconds)

    def infer(self, image, output, **wsi):
        answer = self("POST", f"/infer/wsi/tumor?image={image}&output={output}", json=wsi)
        assert answer.status_code == 200, answer.text
        return answer

    def save(self, image, name, content, params=None):
        return self(
            "PUT", f"/datastore/label?image={image}&tag=final", files={"label": (name, content)},
            data={"params": json.dumps(params or {})},
        )  # fmt: skip

    def next(self, strategy, **request):
        answer = self("POST", f"/activelearning/{strategy}", json=request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def info(self, image):
        return self("GET", f"/datastore/image/info?image={image}").json()

    def train(self, **options):
        """Train and return the task when it has ended."""
        answer = self("POST", "/train/tumor", json=options)
        assert answer.status_code == 200, answer.text
        return self.ended("/train/", answer.json()["id"])

    def ended(self, path, task_id):
        def status():
            (task,) = [one for one in self("GET", path + "?all=true").json() if one["id"] == task_id]
            return task if task["status"] not in ("SUBMITTED", "RUNNING") else None

        return wait(status)

    def running(self):
        """The training that runs, once it does."""

        def found():
            answer = self("GET", "/train/?check_if_running=true")
            return answer.json() if answer.status_code == 200 else None

        return wait(found, 60)

    def scored(self, image, method, weights):
        """The image's scores by these weights, once they are there."""

        def scores():
            found = self.info(image).get(method, {})
            return found if found.get("weights_sha256") == weights else None

        return wait(scores)

    @property
    def model(self):
        return self("GET", "/info/").json()["models"]["tumor"]


def wait(ask, seconds=600):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None:
            return answer
        time.sleep(0.5)
    raise AssertionError("nothing came of it in time")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def label_environment(root, shared_folder):
    """The environment, made where it is not up to date."""
    with FileLock(shared_folder / "label_environment.lock"):
        done = subprocess.run(["bash", root / "scripts" / "label.sh", "--setup"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / ".venv-label"


@pytest.fixture(scope="module")
def serve(root, label_environment):
    """Start a server for a folder of studies; all are stopped when the module's tests have ended."""
    started = []

    def start(studies, *options, **environment):
        port = free_port()
        log = (studies.parent / "server.log").open("wb")
        process = subprocess.Popen(
            ["bash", str(root / "scripts" / "label.sh"), str(studies), "--port", str(port), *map(str, options)],
            stdout=log, stderr=subprocess.STDOUT, cwd=studies, start_new_session=True,
            env={**os.environ, "PYTHON": os.environ.get("PYTHON", "python3"), **environment},
        )  # fmt: skip
        server = Server(port, process, studies)
        started.append(process)

        def answers():
            assert process.poll() is None, Path(log.name).read_text(errors="replace")[-3000:]
            try:
                return requests.get(server.address + "/info/", timeout=5)
            except requests.ConnectionError:
                return None

        server.first_answer = wait(answers)
        server.log = Path(log.name)
        return server

    yield start
    for process in started:
        # one that a test ended is gone
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def studies(data, tmp_path_factory):
    """A folder with the real SVS, a BCSS region as a pyramid, and tiles."""
    folder = tmp_path_factory.mktemp("label") / "my studies"
    folder.mkdir()
    (folder / f"{SVS}.svs").write_bytes((data / "slides" / f"{SVS}.svs").read_bytes())
    pixels = np.asarray(Image.open(data / "bcss" / "rgbs" / ROI).convert("RGB"))
    with tifffile.TiffWriter(folder / "roi.tif") as tiff:
        for level in range(3):
            tiff.write(
                pixels[:: 2**level, :: 2**level], tile=(256, 256), photometric="rgb", compression="zlib",
                subfiletype=int(level > 0), resolution=(1e4 / 0.5 / 2**level,) * 2, resolutionunit="CENTIMETER",
                metadata=None,
            )  # fmt: skip
    for index, (x, y) in enumerate([(1000, 500), (1512, 500), (1000, 1012), (1512, 1012)]):
        Image.fromarray(pixels[y : y + 512, x : x + 512]).save(folder / f"tile {index}.png")
    return folder


@pytest.fixture(scope="module")
def server(serve, studies):
    # few patches, so that scores come soon
    return serve(studies, "--conf", "patches", 6)


@pytest.fixture(scope="session")
def tumor(data):
    """Where the region's tumor is, bool [H, W] at level 0."""
    return np.asarray(Image.open(data / "bcss" / "tumor_masks" / ROI)) > 0


@pytest.fixture(scope="session")
def opposite(tumor):
    """A GeoJSON that calls tumor all that is not, in a part of the region: the network must learn to follow it."""
    x, y, width, height = WORKED
    shapes = rasterio.features.shapes((~tumor).astype(np.uint8), mask=~tumor)
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    drawn = [("Tumor", shape) for shape, _ in shapes] + [("Region*", {"type": "Polygon", "coordinates": [corners]})]
    features = [
        {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": name}}}
        for name, shape in drawn
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})
