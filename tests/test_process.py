"""What a process sets for all that runs in it."""

import json
import platform
import sys

import pytest

LOADED = "print(json.dumps(sorted({'monai', 'torch', *UNUSED} & sys.modules.keys())))"


def printed(run, *lines, truly=True):
    """What the lines print as JSON, in a process that has loaded nothing unless it is forked from one."""
    code = "\n".join(["import json, sys", "from lightmuseg.process import UNUSED, load_light_monai", *lines])
    status, stdout, stderr = run("python", "-c", code, truly=truly)
    assert status == 0, stderr
    return [json.loads(line) for line in stdout.splitlines()]


def test_packages_for_training_are_loaded_when_they_are_asked_for_and_by_no_network(run):
    variants = [{}, {"backbone": "efficientnet_b0"}, {"out_channels": 5}, {"msffm": False}, {"backbone": "vit"}]
    before, after_networks, after = printed(
        run, "load_light_monai()", LOADED, "from lightmuseg.networks import LightMuSeg",
        f"for options in {variants}: LightMuSeg(encoder_weights=None, **options)", LOADED,
        "import ignite.engine, nibabel, scipy.signal", LOADED,
    )  # fmt: skip
    assert before == after_networks == ["monai", "torch"]
    assert {"ignite", "nibabel", "scipy.signal"} <= set(after)


def test_loaded_monai_stays_whole(run):
    asked = "print(json.dumps([optional_import(name)[1] for name in ('ignite', 'nibabel')]))"
    lines = "from monai.utils import optional_import", "load_light_monai()", asked
    assert printed(run, *lines, truly=False) == [[True, True]]


def test_telemetry_is_off_only_where_a_process_says_so(run):
    code = "import sys, lightmuseg.runtimes\nprint('openvino_telemetry' in sys.modules)\n"
    code += "from lightmuseg.process import send_no_telemetry\nsend_no_telemetry()\n"
    code += "try:\n    import openvino_telemetry\nexcept ImportError:\n    print('none')"
    assert run("python", "-c", code, truly=True) == (0, "False\nnone\n", "")


LARGE_AND_SMALL = """
import json
from pathlib import Path
import numpy as np
from lightmuseg.process import MAPPED_BYTES, keep_heap_small

def is_on_the_heap(array):
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
    places = [[int(place, 16) for place in line.split()[0].split("-")] for line in lines]
    return any(start <= array.ctypes.data < end for start, end in places)

def last_of_many():
    # no hole is left for it on the heap; nothing of them is touched
    return [np.empty(32 * MAPPED_BYTES, np.uint8) for _ in range(64)][-1]

np.empty(40 * MAPPED_BYTES, np.uint8)  # once it is freed, glibc puts such arrays on the heap
before = is_on_the_heap(last_of_many())
keep_heap_small()
print(json.dumps([before, is_on_the_heap(last_of_many()), is_on_the_heap(np.empty(MAPPED_BYTES // 8, np.uint8))]))
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_large_arrays_leave_the_heap_and_small_ones_do_not(run):
    assert run("python", "-c", LARGE_AND_SMALL, truly=True) == (0, "[true, false, true]\n", "")
