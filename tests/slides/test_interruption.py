"""A run that is killed goes on to the same bytes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

# Importing the libraries takes seconds: once for all runs, of which each then is a process of its own.
EACH_RUN_IN_A_PROCESS = '''
import json, os, random, shutil, signal, sys, time
import numpy as np
import torch
import cucim
import lightmuseg.slides.job
import lightmuseg.outputs.probabilities
from lightmuseg.errors import report_faults_in_one_line
from lightmuseg.runtimes import RuntimeInfo
from lightmuseg.slides import Options, segment_slides

class Shades:
    tile_size, output_stride, out_channels, parity = 128, 2, 3, None
    choice = "stand-in"
    info = RuntimeInfo("shades", "cpu", "float32")
    def __call__(self, tiles):
        time.sleep(0.004 * len(tiles))
        green = tiles[:, 1::2, 1::2, 1].astype(np.float32)
        return np.stack([np.abs(green - centre) for centre in (60, 128, 200)], axis=1)

def start(output):
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(f"{output}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    report_faults_in_one_line()
    status = 0
    try:
        torch.set_num_threads(1)
        names = ("tumor", "stroma")
        options = Options(output_dir=output, class_names=names, tissue_mask=False, resume=True, probabilities=True)
        segment_slides([sys.argv[1]], Shades(), options, {})
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stderr.flush()
    os._exit(status)

def finish(output):
    return os.waitstatus_to_exitcode(os.waitpid(start(output), 0)[1])

def killed(output, moments, seconds):
    """Kill a run at a random moment; one that ended well before its moment is begun anew, with an earlier one."""
    while True:
        child = start(output)
        time.sleep(moments.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            return status
        shutil.rmtree(output)
        seconds /= 1.2

folder, kills, seed = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
statuses = [finish(f"{folder}/once")]
began = time.monotonic()
statuses.append(finish(f"{folder}/again"))
seconds = time.monotonic() - began
moments = random.Random(seed)
for number in range(kills // 2):
    statuses += [killed(f"{folder}/{number}", moments, seconds) for _ in range(2)]
    statuses.append(finish(f"{folder}/{number}"))
print(json.dumps(statuses))
'''


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    rng = np.random.default_rng(0)
    pixels = gaussian_filter(rng.standard_normal((1000, 900, 3)), (12, 12, 0))
    pixels = np.uint8(np.clip(128 + 60 * pixels / pixels.std(), 0, 255))
    path = tmp_path_factory.mktemp("slides") / "smooth.tif"
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate"}
    tifffile.imwrite(path, pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    return path


def contents(folder):
    """The bytes of a folder's files by name, but for the record, which holds times."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "run.json"}  # fmt: skip


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.nightly)])
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(kills, slide, root, tmp_path):
    words = [sys.executable, "-W", "ignore", "-c", EACH_RUN_IN_A_PROCESS, slide, tmp_path, str(kills), "0"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses[:2] == [0, 0]
    assert statuses[2:] == [-9, -9, 0] * (kills // 2)
    expected = contents(tmp_path / "once" / "smooth")
    assert len(expected) > 5
    for number in range(kills // 2):
        names = {path.name for path in (tmp_path / str(number)).iterdir()}
        assert names == {"smooth", "report.csv"}
        assert contents(tmp_path / str(number) / "smooth") == expected
