"""Networks that cost nothing, for configs to name."""

import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np

from lightmuseg.runtimes import RuntimeInfo


class Green:
    """A network that calls dark places tumor, the same wherever it runs.

    Args:
        seconds: that a batch takes.
    """

    tile_size, output_stride, out_channels, parity = 256, 2, 1, None
    choice = "stand-in"
    info = RuntimeInfo("green", "cpu", "float32")

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __call__(self, tiles):
        time.sleep(self.seconds)
        # squares of 16 pixels, because maps as noisy as pixels have a polygon for each
        green = tiles[:, 8::16, 8::16, 1].astype(np.float32)
        return (150 - green).repeat(8, axis=1).repeat(8, axis=2)[:, None]


class Stopping(Green):
    """The same network, stopped by Ctrl-C at its third batch."""

    batches = 0

    def __call__(self, tiles):
        self.batches += 1
        if self.batches == 3:
            raise KeyboardInterrupt
        return super().__call__(tiles)


class Poisoned(Green):
    """The same network in a process that dies where all of a tile is of one shade."""

    def __call__(self, tiles):
        if any(np.ptp(tile) == 0 and tile[0, 0, 0] == 66 for tile in tiles):
            os._exit(139)
        return super().__call__(tiles)


class Counted(Green):
    """The same network, which notes each batch that it is given, and the Ray node that it is on.

    Args:
        folder: of the notes, a file a process.
        processes: that must have been given a batch before any goes on to its second.
    """

    def __init__(self, folder, processes=1):
        super().__init__()
        node = ""
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            node = sys.modules["ray"].get_runtime_context().get_node_id()
        self.notes, self.processes = Path(folder) / f"{node}-{os.getpid()}", processes

    def __call__(self, tiles):
        with open(self.notes, "a") as file:
            file.write(hashlib.sha256(tiles.tobytes()).hexdigest() + "\n")
        while len(list(self.notes.parent.iterdir())) < self.processes:
            time.sleep(0.05)
        return super().__call__(tiles)
