"""Inference beside the server: one at a time, in a process of its own, for as long as somebody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from fastapi import HTTPException, Request

from .inference_process import CANCELLED

logger = logging.getLogger(__name__)

# Requests that are taken, the one at work among them.
MOST_REQUESTS = 8
# Of the app's network or its libraries nothing can be interrupted; after so long the process is killed.
SECONDS_TO_CANCEL = 10.0
# what a first inference may take, for a client that gets 503 and when to come again
SECONDS_EXPECTED = 20.0


class Inference:
    """Asks a process for label images and outlines, one request after the other; it is started anew where it has ended.

    Args:
        folder: for the files of answers.
        program: the module that the process runs.
    """

    def __init__(self, folder: Path, program: str = "lightmuseg.label.inference_process") -> None:
        self._folder, self._program = folder, program
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._requests = 0
        self._numbers = itertools.count(1)
        self._seconds: deque[float] = deque(maxlen=5)

    async def start(self) -> None:
        """Start the process, where none runs; it takes requests at once, and answers when it has loaded."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-W", "ignore", "-m", self._program,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "TMPDIR": str(self._folder)},
            )  # fmt: skip

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def __call__(self, method: str, wanted: Mapping[str, Any], client: Request) -> dict[str, Any]:
        """What the app's ``method``, infer or infer_wsi, makes of ``wanted``: ``file`` and ``params``, files to remove.

        Raises:
            HTTPException: as the process answers; 503 with a time where too many wait or the process died, 499 where
                the client has gone.
        """
        if self._requests >= MOST_REQUESTS:
            expected = fmean(self._seconds or [SECONDS_EXPECTED])
            raise _busy(f"{self._requests} requests wait already", expected * self._requests)
        self._requests += 1
        work = asyncio.create_task(self._in_turn({"method": method, "request": wanted}))
        gone = asyncio.create_task(_gone(client))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise HTTPException(CANCELLED, "the client has gone")
            answer = work.result()
        finally:
            self._requests -= 1
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if "status" in answer:
            raise HTTPException(answer["status"], answer["detail"])
        return answer

    async def _in_turn(self, task: Mapping[str, Any]) -> dict[str, Any]:
        async with self._turn:
            await self.start()
            number, started = next(self._numbers), time.monotonic()
            answer = asyncio.create_task(self._answer(number, task))
            try:
                # the answer is awaited even where nobody wants it, so that the next one gets its own
                result = await asyncio.shield(answer)
            except asyncio.CancelledError:
                await self._cancel(number, answer)
                raise
            self._seconds.append(time.monotonic() - started)
            return result

    async def _answer(self, number: int, task: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._send({"id": number, **task})
            await self._process.stdin.drain()
            answer = json.loads(await self._process.stdout.readline())
            if answer.pop("id") == number:
                return answer
            fault = "it answered another request"
        except (ConnectionError, ValueError) as error:
            # it has ended, or its line is too long for the reader, of which the rest would be taken for the next answer
            fault = str(error)
        await self.stop()
        logger.error("the process that segments ended (%s, %s)", self._process.returncode, fault)
        raise _busy("the process that segments ended; where memory was short, ask for a smaller region", 10)

    async def _cancel(self, number: int, answer: asyncio.Task[dict[str, Any]]) -> None:
        with contextlib.suppress(ConnectionError):
            self._send({"cancel": number})
        done, _ = await asyncio.wait({answer}, timeout=SECONDS_TO_CANCEL)
        if not done:
            self._process.kill()
            await asyncio.wait({answer})
        if answer.exception() is None:
            remove(answer.result())

    def _send(self, content: Mapping[str, Any]) -> None:
        self._process.stdin.write(json.dumps(content).encode() + b"\n")


async def _gone(client: Request) -> None:
    """Return when the client has closed the connection."""
    while (await client.receive())["type"] != "http.disconnect":
        pass


def _busy(reason: str, seconds: float) -> HTTPException:
    wait = max(1, round(seconds))
    return HTTPException(503, f"{reason}; try again in {wait} s.", headers={"Retry-After": str(wait)})


def remove(answer: Mapping[str, Any]) -> None:
    """Remove the files of an answer."""
    for name in ("file", "params"):
        if answer.get(name):
            Path(answer[name]).unlink(missing_ok=True)
