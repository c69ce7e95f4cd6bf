"""Take the power away while slides are segmented, and see what is there afterwards.

A file system of ext4 on a loop device is shut down as a disk without power is: what is not on it is lost. It is mounted
again, the command is given again, and then each result must be whole, with the same bytes as without any failure, or be
reported. Half of the moments lose the journal's last entries too. Needs root on Linux.

    python scripts/fuzz/power_loss.py --moments 30 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fcntl
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

from lightmuseg.runtimes import RuntimeInfo

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
LOG_FLUSH, NO_LOG_FLUSH = 1, 2
DISK_BYTES = 200_000_000
SLIDES, SIDE = 3, 700
BUNDLE = Path(__file__).parents[2] / "bundle"


class Shades:
    """A network that costs a little time, and calls dark places tumor."""

    tile_size, output_stride, out_channels, parity = 128, 2, 1, None
    choice = "stand-in"
    info = RuntimeInfo("shades", "cpu", "float32")

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        time.sleep(0.002 * len(tiles))
        return 128 - tiles[:, 1::2, 1::2, 1].astype(np.float32)[:, None]


class Disk:
    """A file system in a file, mounted at ``folder``.

    Args:
        path: of a folder for both.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path / "disk"
        self.folder.mkdir()
        image = path / "disk.img"
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        _call("mkfs.ext4", "-q", str(image))
        self._device = _call("losetup", "--find", "--show", str(image)).strip()
        try:
            self.mount()
        except subprocess.CalledProcessError:
            self._detach()
            raise

    def mount(self) -> None:
        _call("mount", "-t", "ext4", self._device, str(self.folder))

    def lose_power(self, flag: int) -> None:
        """Lose what is not on the disk; the folder stays mounted, and everything in it fails."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, flag.to_bytes(4, sys.byteorder))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        _call("umount", str(self.folder))

    def close(self) -> None:
        subprocess.run(["umount", self.folder], capture_output=True)
        self._detach()

    def _detach(self) -> None:
        subprocess.run(["losetup", "--detach", self._device], capture_output=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=30, help="times that power is lost")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cohort", action="store_true", help="the command 'cohort' instead of 'segment --resume'")
    options = parser.parse_args()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        print("power_loss.py: needs root on Linux, which alone may mount a file system")
        return 2
    with tempfile.TemporaryDirectory(prefix="power-loss-") as path, contextlib.ExitStack() as stack:
        folder = Path(path)
        try:
            disk = Disk(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip()
            print(f"power_loss.py: no file system can be mounted here ({said})")
            return 2
        stack.callback(disk.close)
        slides = [_slide(folder / f"slide{number}.tif", number) for number in range(SLIDES)]
        start = _cohort if options.cohort else _segment
        counts, lines = _moments(disk, slides, start, options.moments, random.Random(options.seed))
    for line in lines:
        print(line)
    print(json.dumps({"moments": options.moments, "seed": options.seed, **counts}))
    return 1 if counts["broken unsaid"] else 0


def _moments(
    disk: Disk, slides: list[Path], start: Callable[[list[Path], Path], None], moments: int, chance: random.Random
) -> tuple[Counter[str], list[str]]:
    once = disk.folder / "once"
    began = time.monotonic()
    if _ended(_forked(start, slides, once)) != 0:
        raise SystemExit("power_loss.py: the slides cannot be segmented without any failure")
    seconds = time.monotonic() - began
    expected = {slide.stem: _contents(once / slide.stem) for slide in slides}
    shutil.rmtree(once)
    os.sync()
    counts: Counter[str] = Counter({"whole": 0, "reported": 0, "broken unsaid": 0})
    lines = []
    for number in range(moments):
        output = disk.folder / f"moment{number}"
        flag = chance.choice((LOG_FLUSH, NO_LOG_FLUSH))
        after = chance.uniform(0.05, 1.15) * seconds
        child = _forked(start, slides, output)
        time.sleep(after)
        disk.lose_power(flag)
        os.kill(child, signal.SIGKILL)
        counts["ended before"] += _ended(child) == 0
        disk.unmount()
        disk.mount()
        counts["results seen after the loss"] += len(list(output.glob("slide*")))
        _ended(_forked(start, slides, output))
        for slide in slides:
            fault = _fault(output / slide.stem, expected[slide.stem])
            outcome = "whole" if fault is None else "reported" if _is_reported(output, slide) else "broken unsaid"
            counts[outcome] += 1
            if fault is not None:
                lines.append(f"moment {number}, {after:.2f} of {seconds:.2f} s: {slide.stem}: {outcome}: {fault}")
        counts["kept aside"] += len(list(output.glob(".*.kept-*")))
        left = {path.name for path in output.rglob(".*") if ".kept-" not in path.name} - {".cohort"}
        counts["left over"] += len(left)
        lines += [f"moment {number}: left over: {', '.join(sorted(left))}"] if left else []
        shutil.rmtree(output)
        os.sync()
    return counts, lines


def _segment(slides: list[Path], output: Path) -> None:
    from lightmuseg.slides import Options, segment_slides

    options = Options(output_dir=output, class_names=("tumor",), tissue_mask=False, resume=True)
    segment_slides([str(slide) for slide in slides], Shades(), options, {})


def _cohort(slides: list[Path], output: Path) -> None:
    from lightmuseg.cohort import segment_cohort

    override = slides[0].with_name("override.json")
    override.write_text(json.dumps({"tissue_mask": False, "runtime": "$__import__('power_loss').Shades()"}))
    run = segment_cohort([str(slides[0].parent / "*.tif")], output, BUNDLE, override)
    if run.failed:
        raise SystemExit(1)


def _forked(start: Callable[[list[Path], Path], None], slides: list[Path], output: Path) -> int:
    """Begin a run in a process of its own, which has loaded the libraries already."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        if "POWER_LOSS_DEBUG" not in os.environ:
            os.dup2(null, 2)
        start(slides, output)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _contents(folder: Path) -> dict[str, bytes]:
    """The bytes of a folder's files by name, but for the record, which holds times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def _fault(folder: Path, expected: dict[str, bytes]) -> str | None:
    found = _contents(folder)
    different = [name for name in sorted(expected.keys() | found.keys()) if found.get(name) != expected.get(name)]
    if different:
        sizes = ", ".join(f"{name} {len(found[name]) if name in found else 'missing'}" for name in different[:3])
        return f"{len(different)} files differ ({sizes})"
    try:
        listed = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("files")
    except (OSError, ValueError) as error:
        return f"run.json: {error}"
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    if listed is not None and {name: about["sha256"] for name, about in listed.items()} != hashes:
        return "run.json has other hashes"
    return None


def _is_reported(output: Path, slide: Path) -> bool:
    """Whether a table of the output says that a slide is not done."""
    rows = []
    for table in ("report.csv", "cohort.csv"):
        with contextlib.suppress(OSError), open(output / table, newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    return any(row["slide"] == str(slide) and row["status"] != "done" for row in rows)


def _slide(path: Path, seed: int) -> Path:
    fields = np.random.default_rng(seed).integers(0, 256, (SIDE // 100, SIDE // 100, 1), dtype=np.uint8)
    pixels = np.broadcast_to(fields, (*fields.shape[:2], 3)).repeat(100, axis=0).repeat(100, axis=1)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate"}
    tifffile.imwrite(path, pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    return path


def _call(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def _loaded() -> Iterator[None]:
    """The libraries, once for all runs."""
    import torch

    for name in ("cohort", "slides.bundle_config", "slides.segmenter"):
        importlib.import_module(f"lightmuseg.{name}")

    torch.set_num_threads(1)
    yield


if __name__ == "__main__":
    with _loaded():
        sys.exit(main())
