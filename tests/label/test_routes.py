"""Every route of another application is served, answered by ourselves, or closed; what is new is closed."""

import subprocess
import threading

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from lightmuseg.label.routes import CLOSED, in_a_thread, named_routes, ready, take_over


@pytest.fixture
def stock(tmp_path):
    """An application as MONAI Label's: coroutines that wait for nothing, in routers that are included."""
    app, info, other = FastAPI(), APIRouter(prefix="/info"), APIRouter(prefix="/session")

    @info.get("/", summary="[User] Get App Info", tags=["App"])
    async def api_info(all: bool = False, user: str = Depends(lambda: "admin")):
        return {"thread": threading.current_thread().name, "all": all, "user": user}

    @other.put("/")
    async def api_session():
        raise AssertionError("it runs")

    @app.post("/brand/new")
    async def api_new():
        raise AssertionError("it runs")

    app.include_router(info)
    app.include_router(other)
    app.mount("/static", StaticFiles(directory=tmp_path))
    return app


def test_routes_are_named_wherever_they_stand(stock):
    names = dict(named_routes(stock.routes))
    assert {"GET /info/", "PUT /session/", "POST /brand/new", "MOUNT /static", "GET /openapi.json"} <= set(names)


def test_a_new_route_is_not_decided_on(stock):
    undecided = take_over(FastAPI(), stock)
    assert "POST /brand/new" in undecided
    assert not {"GET /info/", "PUT /session/", "MOUNT /static", "GET /docs"} & set(undecided)


def test_own_answer_goes_before_that_of_the_other_application(stock):
    app = FastAPI()
    app.add_api_route("/info/", lambda: "ours")
    app.add_api_route("/session/", lambda: "ours", methods=["PUT"])
    assert not {"GET /info/", "PUT /session/"} & set(take_over(app, stock))
    asking = TestClient(app)
    assert asking.get("/info/").json() == asking.put("/session/").json() == "ours"


def test_what_is_closed_or_new_does_not_run_and_says_why(stock, tmp_path, caplog):
    (tmp_path / "file.js").write_text("1")
    app = FastAPI(docs_url=None)
    take_over(app, stock)
    asking = TestClient(app)
    for answer in (asking.put("/session/"), asking.post("/brand/new"), asking.get("/static/file.js")):
        assert answer.status_code == 403
        assert answer.json()["detail"].endswith(".")
    assert "sessions are closed" in asking.put("/session/").json()["detail"]
    assert "POST /brand/new" in caplog.text


def test_what_is_served_runs_beside_the_event_loop(stock):
    app = FastAPI()
    take_over(app, stock)
    with TestClient(app) as asking:
        answer = asking.get("/info/?all=true").json()
        assert (answer["all"], answer["user"]) == (True, "admin")
        assert "AnyIO worker thread" in answer["thread"]
        assert asking.get("/info/?all=maybe").status_code == 422
        operation = asking.get("/openapi.json").json()["paths"]["/info/"]["get"]
    assert (operation["summary"], operation["tags"]) == ("[User] Get App Info", ["App"])


def test_endpoint_that_waits_is_refused():
    async def waits():
        import asyncio

        await asyncio.sleep(0)

    with pytest.raises(TypeError, match="waits for something"):
        in_a_thread(waits)()


def test_faults_and_responses_pass_through():
    async def fails(name: str):
        raise HTTPException(404, name)

    async def answers():
        return Response("x", media_type="text/plain")

    async def user():
        return "admin"

    with pytest.raises(HTTPException, match="404: it"):
        in_a_thread(fails, ready)(name="it")
    assert in_a_thread(answers, ready)().body == b"x"
    assert in_a_thread(user)() == "admin"


def test_what_is_closed_gives_a_reason():
    assert [pattern for pattern, reason in CLOSED.items() if not reason.endswith(".")] == []


@pytest.mark.label
def test_every_route_of_monai_label_is_decided_and_none_is_decided_that_is_not_there(label_environment, tmp_path):
    lines = [
        "import json, sys", "from lightmuseg.networks.torchvision_operators import declare_missing_operators",
        "declare_missing_operators()", "from fnmatch import filter", "from fastapi import FastAPI",
        "from monailabel.app import app as stock", "from lightmuseg.label.endpoints import add_own",
        "from lightmuseg.label.routes import CLOSED, SERVED, named_routes, take_over",
        "names = [name for name, _ in named_routes(stock.routes)]", "app = FastAPI(docs_url=None, redoc_url=None)",
        "add_own(app)",
        "unknown = [one for one in SERVED if one not in names] + [one for one in CLOSED if not filter(names, one)]",
        "print(json.dumps([take_over(app, stock), unknown]), file=sys.stderr)",
    ]  # fmt: skip
    # the routes of logging in are there only where it is on
    command = [label_environment / "bin" / "python", "-W", "ignore", "-c", "\n".join(lines)]
    environment = {
        "MONAI_LABEL_AUTH_ENABLE": "true",
        "MONAI_LABEL_AUTH_REALM_URI": "http://127.0.0.1:9",
        "PATH": "/bin",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[[], []]"
