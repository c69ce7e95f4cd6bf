"""Inference in a process of its own: in turn, for as long as somebody waits, and no longer than the server lives."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fastapi import HTTPException

from lightmuseg.label import inference as module
from lightmuseg.label.inference import Inference, remove
from lightmuseg.label.parent import SERVER

# the process with another app, whose requests say what happens
PROGRAM = """
import os, tempfile, time
from fastapi import HTTPException
from lightmuseg.label.inference_process import serve

class App:
    done = []

    def infer_wsi(self, request):
        print("a library prints")
        if "status" in request:
            raise HTTPException(request["status"], "as asked")
        if request.get("bug"):
            raise ZeroDivisionError
        if request.get("die"):
            os._exit(3)
        end = time.monotonic() + request.get("seconds", 0)
        while time.monotonic() < end:
            try:
                time.sleep(0.01)
            except KeyboardInterrupt:
                if not request.get("stubborn"):
                    raise
        self.done.append(request.get("name"))
        handle, name = tempfile.mkstemp()
        os.close(handle)
        return {"file": name, "params": {"done": self.done, "process": os.getpid()}}

serve(App)
"""


class Client:
    """A request's connection, which is closed when it is told to."""

    def __init__(self):
        self.closed = asyncio.Event()

    async def receive(self):
        await self.closed.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder from which processes can run the program."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(SERVER, str(os.getpid()))
    return tmp_path


@pytest.fixture
def asked(place):
    """Run a coroutine with the inference, and end its process."""

    def asked(scenario):
        async def run():
            folder = place / "answers"
            folder.mkdir()
            inference = Inference(folder, "program")
            try:
                return await asyncio.wait_for(scenario(inference), 120)
            finally:
                await inference.stop()

        return asyncio.run(run())

    return asked


async def facts(inference, client=None, **request):
    answer = await inference("infer_wsi", request, client or Client())
    said = json.loads(Path(answer["params"]).read_text())
    remove(answer)
    assert not Path(answer["file"]).exists()
    return said


def test_requests_are_answered_in_turn_by_one_process_while_others_are_served(asked):
    async def scenario(inference):
        ticks = []

        async def ticking():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        other = asyncio.create_task(ticking())
        answers = await asyncio.gather(*(facts(inference, name=name, seconds=0.3) for name in "abc"))
        other.cancel()
        return answers, ticks

    answers, ticks = asked(scenario)
    assert [answer["done"] for answer in answers] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert len({answer["process"] for answer in answers}) == 1
    assert len(ticks) > 10, "the event loop was kept busy"


def test_client_that_goes_takes_its_inference_along(asked):
    async def scenario(inference):
        first = await facts(inference, name="first")
        client, waiting = Client(), Client()
        long = asyncio.create_task(facts(inference, client, name="long", seconds=600))
        queued = asyncio.create_task(facts(inference, waiting, name="queued"))
        await asyncio.sleep(0.3)
        waiting.closed.set()
        await asyncio.sleep(0.1)
        client.closed.set()
        gone = await asyncio.gather(long, queued, return_exceptions=True)
        return first, [error.status_code for error in gone], await facts(inference, name="last")

    first, gone, last = asked(scenario)
    assert gone == [499, 499]
    assert last["done"] == ["first", "last"]
    assert last["process"] == first["process"], "nothing had to be loaded anew"


def test_inference_that_cannot_be_interrupted_is_killed_and_the_next_is_answered(asked, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_CANCEL", 0.2)

    async def scenario(inference):
        first, client = await facts(inference, name="first"), Client()
        long = asyncio.create_task(facts(inference, client, seconds=600, stubborn=True))
        await asyncio.sleep(0.3)
        client.closed.set()
        (gone,) = await asyncio.gather(long, return_exceptions=True)
        return first, gone.status_code, await facts(inference, name="last")

    first, gone, last = asked(scenario)
    assert gone == 499
    assert last["done"] == ["last"]
    assert last["process"] != first["process"]


def test_process_that_dies_is_told_with_a_time_and_started_anew(asked):
    async def scenario(inference):
        with pytest.raises(HTTPException) as died:
            await facts(inference, die=True)
        return died.value, await facts(inference, name="next")

    died, answer = asked(scenario)
    assert (died.status_code, int(died.headers["Retry-After"]) > 0) == (503, True)
    assert answer["done"] == ["next"]


@pytest.mark.parametrize(("request_", "status"), [({"status": 404}, 404), ({"bug": True}, 500)])
def test_faults_have_their_status_and_the_process_goes_on(request_, status, asked):
    async def scenario(inference):
        with pytest.raises(HTTPException) as fault:
            await facts(inference, **request_)
        return fault.value, await facts(inference, name="next")

    fault, answer = asked(scenario)
    assert fault.status_code == status
    assert answer["done"] == ["next"]


def test_more_than_can_wait_are_refused_with_a_time(asked, monkeypatch):
    monkeypatch.setattr(module, "MOST_REQUESTS", 3)

    async def scenario(inference):
        taken = [asyncio.create_task(facts(inference, name=name, seconds=0.2)) for name in "abc"]
        await asyncio.sleep(0.05)
        with pytest.raises(HTTPException) as full:
            await facts(inference, name="d")
        answers = await asyncio.gather(*taken)
        return full.value, answers, await facts(inference, name="e")

    full, _, later = asked(scenario)
    assert full.status_code == 503
    assert 1 <= int(full.headers["Retry-After"]) <= 3 * module.SECONDS_EXPECTED
    assert later["done"] == ["a", "b", "c", "e"]


@pytest.mark.parametrize(("length", "number"), [(200_000, 0), (10, 1)])
def test_answer_that_cannot_be_that_of_the_request_is_not_given_to_anybody(length, number, place):
    (place / "wrong.py").write_text(f"""
import json, sys
for line in sys.stdin:
    print(json.dumps({{"id": json.loads(line)["id"] + {number}, "params": "x" * {length}}}), flush=True)
""")

    async def scenario():
        inference = Inference(place, "wrong")
        with pytest.raises(HTTPException) as fault:
            await inference("infer_wsi", {}, Client())
        inference._program = "program"
        try:
            return fault.value.status_code, await facts(inference, name="next")
        finally:
            await inference.stop()

    status, answer = asyncio.run(scenario())
    assert status == 503
    assert answer["done"] == ["next"]


def test_process_ends_when_the_server_is_killed(place):
    script = f"""
import asyncio, os, sys
from pathlib import Path
os.environ["{SERVER}"] = str(os.getpid())
from lightmuseg.label.inference import Inference

class Client:
    async def receive(self):
        await asyncio.sleep(600)

async def main():
    inference = Inference(Path("."), "program")
    work = asyncio.create_task(inference("infer_wsi", {{"seconds": 600}}, Client()))
    while inference._process is None:
        await asyncio.sleep(0.1)
    print(inference._process.pid, flush=True)
    await work

asyncio.run(main())
"""
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=place)
    worker = psutil.Process(int(server.stdout.readline()))
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    # whatever it is loading just then
    worker.wait(60)
