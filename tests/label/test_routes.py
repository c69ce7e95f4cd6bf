"""Every route of another application is served, answered by ourselves, or closed; what is new is closed."""

import subprocess
import threading

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from lightmuseg.label.routes import (
    ROUTES,
    Closed,
    Ours,
    Served,
    in_a_thread,
    named_routes,
    run_through,
    take_over,
    undecided,
    without_waiting,
)  # fmt: skip


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
    assert "POST /brand/new" in undecided(stock)
    assert not {"GET /info/", "PUT /session/", "MOUNT /static"} & set(undecided(stock))


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
        run_through(waits)


def test_faults_and_responses_pass_through():
    async def fails(name: str):
        raise HTTPException(404, name)

    async def answers():
        return Response("x", media_type="text/plain")

    async def user():
        return "admin"

    with pytest.raises(HTTPException, match="404: it"):
        in_a_thread(fails)(name="it")
    assert in_a_thread(answers)().body == b"x"
    assert without_waiting(user)() == "admin"


def test_every_decision_is_one_of_three_and_gives_a_reason():
    for name, decision in ROUTES.items():
        assert isinstance(decision, (Served, Ours, Closed)), name
        assert not isinstance(decision, Closed) or decision.reason.endswith("."), name


@pytest.mark.label
def test_every_route_of_monai_label_is_decided_and_none_is_decided_that_is_not_there(label_environment, tmp_path):
    lines = [
        "import json, sys", "from lightmuseg.networks.torchvision_operators import declare_missing_operators",
        "declare_missing_operators()", "from monailabel.app import app",
        "from lightmuseg.label.routes import ROUTES, named_routes, undecided",
        "names = {name for name, _ in named_routes(app.routes)}",
        "print(json.dumps([undecided(app), sorted(set(ROUTES) - names)]), file=sys.stderr)",
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
