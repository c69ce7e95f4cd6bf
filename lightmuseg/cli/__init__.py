"""The command ``lightmuseg``: arguments in, library calls out."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import fire
from tqdm import tqdm

from lightmuseg import __version__
from lightmuseg.errors import report_faults_in_one_line
from lightmuseg.process import send_no_telemetry

from .arguments import checked
from .cohort_commands import cohort
from .dataset_commands import Prepare, stats
from .info_commands import info, models
from .slide_commands import quantize, segment
from .verify_command import verify
from .view_command import view

COMMANDS = {
    "cohort": cohort,
    "info": info,
    "models": models,
    "prepare": Prepare(),
    "quantize": quantize,
    "segment": segment,
    "stats": stats,
    "verify": verify,
    "view": view,
}


class _OneLine(logging.Handler):
    """Show what the library logs, above the bar of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"lightmuseg: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def main() -> None:
    """Run the command line; faults end in one line and exit status 1."""
    report_faults_in_one_line()
    logging.getLogger("lightmuseg").addHandler(_OneLine())
    # which of them --runtime auto takes, and why
    logging.getLogger("lightmuseg.runtimes").setLevel(logging.INFO)
    send_no_telemetry()
    # what is printed names files, and such a name may be no Unicode
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if sys.argv[1:] == ["--version"]:
        print(f"lightmuseg {__version__}")
        return
    if shutil.which("nvidia-smi") is None:
        # Without a GPU its codecs have nothing to load and say so at every start; a folder without any silences them.
        os.environ.setdefault("NVIMGCODEC_EXTENSIONS_PATH", str(Path(__file__).parent))
    fire.Fire(COMMANDS, command=checked(sys.argv[1:], COMMANDS), name="lightmuseg")
