"""What a request asks for is checked before anything is done with it."""

import asyncio
import json
import re

import pytest
from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from starlette.testclient import TestClient

from lightmuseg.errors import InputError
from lightmuseg.label.request_checks import (
    FORM_LIMITS,
    IMAGE_KEYS,
    PatchRequest,
    SegmentationRequest,
    TrainingOptions,
    checked,
    client_info,
    inference_params,
    json_object,
    options_of,
)  # fmt: skip

CONFIG = {"max_epochs": 20, "learning_rate": 1e-4, "pretrained": True, "gpus": "all", "device": ["cpu", "cuda"]}


@pytest.fixture(scope="module")
def asking():
    app = FastAPI(form_limits=FORM_LIMITS)

    @app.put("/label/{tag}", dependencies=[Depends(checked)])
    def answer(request: Request, tag: str, file: UploadFile, params: str = Form("{}")):
        return {"name": file.filename, "params": json.loads(params or "{}")}

    with TestClient(app) as client:
        yield client


def sent(client, query="", name="a.xml", params="{}"):
    return client.put(f"/label/final{query}", files={"file": (name, b"x")}, data={"params": params})


def test_what_a_client_sends_passes(asking):
    assert sent(asking, "?run_sync=false&session_id=", "é 1.xml", '{"a": 1}').json() == {
        "name": "é 1.xml",
        "params": {"a": 1},
    }


@pytest.mark.parametrize(
    ("query", "name", "params", "says"),
    [
        ("?session_id=/some/folder", "a.xml", "{}", "session_id: "), ("?run_sync=TRUE", "a.xml", "{}", "run_sync: "),
        ("?run_sync=1", "a.xml", "{}", "run_sync: "), ("?image=a%00b", "a.xml", "{}", "image "),
        ("?image=" + "a" * 1001, "a.xml", "{}", "image "), ("", "../a.xml", "{}", "file "),
        ("", "a" * 250 + ".xml", "{}", "file "), ("", "é" * 150, "{}", "file "), ("", "a.xml", "[1]", "params [1]: "),
        ("?check_sum=FOO:abc", "a.xml", "{}", "check_sum: "), ("", "a.xml", '{"a": NaN}', "params: "),
        ("", "a.xml", '{"a": [1e999]}', "params: "), ("", "a.xml", '{"a": "\\ud800"}', "params: "),
        ("", "a.xml", '{"\\udfff": 1}', "params: "),
        ("", "a.xml", '"\\ud800"', "params "), ("", "a.xml", '{"a":' * 30 + "1" + "}" * 30, "params: "),
        ("", "a.xml", "{", "params: "), ("", "a.xml", "1", "params 1: "), ("", "a.xml", "[" * 100_000, "params: "),
    ],
)  # fmt: skip
def test_what_no_route_takes_is_refused_in_one_line(query, name, params, says, asking):
    answer = sent(asking, query, name, params)
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"].startswith(says)
    assert "\n" not in answer.json()["detail"]


def test_form_has_one_file_and_few_fields(asking):
    files = [("file", ("a.xml", b"x")), ("other", ("b.xml", b"x"))]
    assert asking.put("/label/final", files=files).status_code == 400
    fields = {f"field{number}": "1" for number in range(20)}
    assert asking.put("/label/final", files={"file": ("a.xml", b"x")}, data=fields).status_code == 400
    assert sent(asking, params='{"a": "' + "x" * 200_000 + '"}').status_code == 400


def test_client_does_not_say_what_the_server_says():
    assert client_info({"colour": "red", "deep": [[1], {"a": None}]}, "info", IMAGE_KEYS)
    for key in ("entropy", "epistemic", "taken", "strategy", "name"):
        with pytest.raises(HTTPException) as refused:
            client_info({key: 5}, "info", IMAGE_KEYS)
        assert refused.value.status_code == 400


def test_zero_byte_in_the_address_is_refused(asking):
    assert asking.put("/label/a%00b", files={"file": ("a", b"x")}).status_code == 400


def test_no_json_is_an_empty_object():
    assert json_object("", "params") == {}


@pytest.mark.parametrize("name", ["image", "model", "session", "output", "label", "save_label"])
def test_params_do_not_say_what_the_server_does(name):
    with pytest.raises(HTTPException) as refused:
        inference_params({name: "/etc/passwd"})
    assert refused.value.status_code == 400


def test_params_may_say_the_rest():
    assert inference_params({"foreground": [], "max_workers": 1, "save_label": False}) == {
        "foreground": [],
        "max_workers": 1,
    }


@pytest.mark.parametrize(
    "options",
    [
        None, {}, {"max_epochs": 1}, {"learning_rate": 1}, {"learning_rate": 0.5}, {"pretrained": False},
        {"gpus": "0,1"}, {"device": "cuda"}, {"device": ["cpu", "cuda"]}, {"max_epochs": -1},
    ],
)  # fmt: skip
def test_options_that_are_like_the_configs_pass(options):
    assert options_of(options, CONFIG) == (options or {})


@pytest.mark.parametrize(
    "options",
    [
        [1], {"bundle_path": "/tmp"}, {"model": "other"}, {"max_epochs": 1.5}, {"max_epochs": True},
        {"max_epochs": "2"}, {"max_epochs": 10**12}, {"max_epochs": 10**400},
        {"learning_rate": 10**400}, {"learning_rate": float("nan")}, {"learning_rate": float("inf")},
        {"gpus": ["0"]},
        {"gpus": "0" * 2000}, {"pretrained": 1}, {"device": "cpu; rm"}, {"device": {}}, {"max_epochs": None},
    ],
)  # fmt: skip
def test_other_options_are_refused(options):
    with pytest.raises(HTTPException) as refused:
        options_of(options, CONFIG)
    assert refused.value.status_code == 400
    assert "\n" not in refused.value.detail


def test_other_bodies_are_not_read():
    async def never():
        raise AssertionError("the body is read")

    scope = {
        "type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")],
        "query_string": b"", "path_params": {},
    }  # fmt: skip
    asyncio.run(checked(Request(scope, never)))


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        (SegmentationRequest, "location", [0]), (SegmentationRequest, "level", True),
        (SegmentationRequest, "size", [1.5, 2]), (SegmentationRequest, "tile_size", [0, 0]),
        (SegmentationRequest, "min_poly_area", -1), (SegmentationRequest, "output", "exe"),
        (PatchRequest, "patch_size", [0, 5]), (PatchRequest, "client_id", [[1]]),
        (PatchRequest, "client_id", "x" * 201), (PatchRequest, "image", 5), (TrainingOptions, "max_epochs", 0),
        (TrainingOptions, "learning_rate", -1.0), (TrainingOptions, "learning_rate", float("nan")),
        (TrainingOptions, "held_out", 1), (TrainingOptions, "learning_rate", 10**400), (TrainingOptions, "seed", -1),
        (TrainingOptions, "batch_size", "2"), (TrainingOptions, "max_epochs", 10**12),
    ],
)  # fmt: skip
def test_value_that_cannot_be_is_named_with_what_to_give(model, name, value):
    with pytest.raises(InputError, match=f"^{name} {re.escape(ascii(value)[:80])}: .*; give .*[.]$") as refused:
        model.of({name: value})
    assert len(str(refused.value).splitlines()) == 1


def test_values_that_are_not_given_or_of_others_are_the_defaults():
    assert SegmentationRequest.of({"size": None, "model": "x"}) == SegmentationRequest()
    assert SegmentationRequest.of({"location": (3, 4), "min_poly_area": 2.5}).location == (3, 4)
    assert TrainingOptions.of({"learning_rate": 1, "gpus": "all"}).learning_rate == 1
