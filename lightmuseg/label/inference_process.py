"""The process that segments for the label server: MONAI Label's app, which reads requests from its standard input.

A line is ``{"id": 1, "method": "infer_wsi", "request": {...}}``, a method of the app and what it takes, or
``{"cancel": 1}``. Each request is answered by one line on the standard output, either
``{"id": 1, "file": ..., "params": ...}``, with two files that the reader removes, or
``{"id": 1, "status": 400, "detail": ...}``.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from fastapi import HTTPException

from lightmuseg.errors import InputError

from .faults import fault_line
from .parent import NICE_INFERENCE, follow_server

logger = logging.getLogger(__name__)

CANCELLED = 499
# characters of a fault; asyncio reads lines of at most 64 KiB
MAX_DETAIL = 2000


class Worker:
    """Answers lines of requests in order, and lets one go that is cancelled as Ctrl-C would a command."""

    def __init__(self, requests: TextIO, answers: TextIO, load: Callable[[], Any]) -> None:
        self._requests, self._answers, self._load = requests, answers, load
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._current: int | None = None
        self._cancelled: int | None = None

    def run(self) -> None:
        """Answer until there are no more requests."""
        signal.signal(signal.SIGINT, self._interrupted)
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        app = self._load()
        while (task := self._waiting.get()) is not None:
            answer = self._answer(app, task)
            print(json.dumps({"id": task["id"], **answer}), file=self._answers, flush=True)

    def _read(self) -> None:
        for line in self._requests:
            message = json.loads(line)
            if "cancel" in message:
                self._cancelled = message["cancel"]
                _thread.interrupt_main()
            else:
                self._waiting.put(message)
        self._waiting.put(None)

    def _interrupted(self, *_: object) -> None:
        # Ctrl-C in the terminal of the server reaches this process too, and is the server's to act on
        if self._current is not None and self._current == self._cancelled:
            self._current = None
            raise KeyboardInterrupt

    def _answer(self, app: Any, task: dict[str, Any]) -> dict[str, Any]:
        try:
            self._current = task["id"]
            if self._cancelled == task["id"]:
                raise KeyboardInterrupt
            result = getattr(app, task["method"])(task["request"])
            self._current = None
            return _files_of(result)
        except KeyboardInterrupt:
            return {"status": CANCELLED, "detail": "cancelled"}
        except HTTPException as error:
            status, detail = error.status_code, str(error.detail)
        except InputError as error:
            status, detail = 400, fault_line(error, Path(task["request"]["image"]).parent)
        except Exception as error:
            logger.exception("an inference failed")
            # of MONAI Label's own faults
            message = getattr(error, "msg", None)
            status, detail = 500, "the inference failed; the server's log shows how."
            if isinstance(message, str):
                status, detail = 400, message.splitlines()[0]
        finally:
            self._current = None
        return {"status": status, "detail": detail[:MAX_DETAIL]}


def _files_of(result: dict[str, Any]) -> dict[str, Any]:
    """The answer's two files: that of the label, and one of the plain values, which may be many megabytes."""
    handle, params = tempfile.mkstemp(suffix=".json")
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(result.get("params"), file, default=str)
    label = result.get("file") or result.get("label")
    return {"file": label if label and Path(label).is_file() else None, "params": params}


def serve(load: Callable[[], Any]) -> None:
    """Answer the requests of the server that started this process with the app that ``load`` gives."""
    follow_server(NICE_INFERENCE)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] [inference] [%(levelname)s] %(message)s")
    # what libraries print goes to the log
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    Worker(sys.stdin, answers, load).run()


def _app() -> Any:
    from lightmuseg.networks.torchvision_operators import declare_missing_operators

    # monailabel imports torchvision
    declare_missing_operators()
    from monailabel.interfaces.utils.app import app_instance

    return app_instance()


if __name__ == "__main__":
    serve(_app)
