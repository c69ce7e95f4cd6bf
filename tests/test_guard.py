"""Requests pass under a name of the server, from programs and from its own pages alone."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from lightmuseg.guard import Guard, is_loopback

POLICY = "default-src 'none'"


def guarded(host="127.0.0.1", base="http://127.0.0.1:8000", **options):
    routes = [
        Route("/", lambda request: PlainTextResponse("here"), methods=["GET", "POST"]),
        Route("/own", lambda request: Response(headers={"Content-Security-Policy": "img-src data:"})),
    ]
    return TestClient(Guard(Starlette(routes=routes), host, policy=POLICY, **options), base_url=base)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8000", 200), ("HTTP://127.0.0.1:8000", 200), ("http://127.0.0.1:3000", 403),
        ("http://127.0.0.1", 403), ("https://127.0.0.1:8000", 403), ("http://localhost:8000", 403),
        ("http://evil.example", 403), ("http://[::1", 403), ("null", 403), ("", 403), ("http://127.0.0.1:8000/", 403),
        ("http://127.0.0.1:8000@evil.example", 403), ("\xff", 403),
    ],
)  # fmt: skip
def test_origin_is_this_servers_by_scheme_name_and_port(origin, status):
    answer = guarded().post("/", headers={"Origin": origin.encode("latin-1")})
    assert answer.status_code == status
    assert answer.headers["content-security-policy"] == POLICY


def test_programs_send_no_origin():
    assert guarded().post("/").text == "here"


@pytest.mark.parametrize(
    ("host", "names", "asked", "status"),
    [
        ("127.0.0.1", (), "localhost:8000", 200), ("127.0.0.1", (), "evil.example", 421),
        ("127.0.0.1", ("slides.example",), "Slides.Example:8000", 200), ("127.0.0.1", (), "10.0.0.7", 421),
        ("0.0.0.0", (), "10.0.0.7:8000", 200), ("0.0.0.0", (), "evil.example", 421),
        ("slides.example", (), "slides.example", 200), ("127.0.0.1", (), "[::1]:8000", 200),
        ("127.0.0.1", (), "[::1", 421), ("127.0.0.1", (), "", 421), ("127.0.0.1", (), "a@127.0.0.1", 421),
    ],
)  # fmt: skip
def test_name_is_one_by_which_the_server_is_known(host, names, asked, status):
    assert guarded(host, names=names).get("/", headers={"Host": asked}).status_code == status


def test_only_methods_that_are_named_pass():
    asking = guarded(methods=("GET", "HEAD"))
    assert asking.get("/").status_code == 200
    refused = asking.post("/")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_a_page_may_have_a_policy_of_its_own():
    assert guarded().get("/own").headers["content-security-policy"] == "img-src data:"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("pathology.example", False)],
)
def test_loopback_is_what_only_this_computer_reaches(host, expected):
    assert is_loopback(host) is expected
