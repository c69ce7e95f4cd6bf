"""Hostile requests to a server, made from its OpenAPI schema: by Schemathesis, and from values of our own."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
import random
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import requests
from fuzz_values import ENCODED, FIELDS, HEADERS, JSON, KNOWN, LABEL, MARK, PICTURES, TEXTS, VALUES, files

from lightmuseg.errors import InputError


@dataclass(frozen=True)
class Asked:
    """A request as it is sent, which a client's library would put right.

    Attributes:
        operation: of the schema, such as ``GET /info/``.
        what: is hostile in it.
        target: path and query.
        broken: it is no HTTP, or ends too early, and need not be answered.
    """

    operation: str
    what: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    broken: bool = False

    def raw(self, host: str) -> bytes:
        """The bytes of it."""
        names = {name.lower() for name, _ in self.headers}
        headers = [("Connection", "close"), *self.headers]
        if "host" not in names:
            headers.append(("Host", host))
        if not names & {"content-length", "transfer-encoding"}:
            headers.append(("Content-Length", str(len(self.body))))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(": ".join(header) for header in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    def curl(self, address: str) -> str:
        """A command that sends it, but for what is longer than a line should be."""
        words = ["curl", "--path-as-is", "-X", self.method, address + self.target[:500]]
        words += [word for name, value in self.headers for word in ("-H", f"{name}: {value[:200]}")]
        if self.body:
            words += ["--data-binary", self.body[:1000].decode("utf-8", "backslashreplace")]
        return repr(shlex.join(words))[1:-1] + (f" ({len(self.body)} bytes)" if len(self.body) > 1000 else "")


def multipart(parts: dict[str, tuple[str | None, bytes]]) -> tuple[str, bytes]:
    """Media type and body of a form of files' names and contents."""
    made = requests.Request("PUT", "http://a", files=parts).prepare()
    return made.headers["Content-Type"], made.body


class _Operation:
    """An operation of the schema, which may be asked with any value in any place."""

    def __init__(self, method: str, path: str, operation: dict[str, Any], spec: dict[str, Any]) -> None:
        self._method, self._path = method, path
        self._parameters = [one["name"] for one in operation.get("parameters", ())]
        content = operation.get("requestBody", {}).get("content", {})
        self._media = next(iter(content), "")
        name = content[self._media]["schema"].get("$ref", "").rpartition("/")[2] if content else ""
        schema = spec.get("components", {}).get("schemas", {}).get(name, {})
        parts = {part: "octet-stream" in str(of) for part, of in schema.get("properties", {}).items()}
        self._parts = parts if "form" in self._media else {}
        self._file = (f"{MARK}.geojson", LABEL) if "label" in parts else (f"{MARK}.png", PICTURES[f"{MARK} 2.png"])
        needed = [part for part, is_file in self._parts.items() if not is_file or part in schema.get("required", ())]
        self._usual = {part: self._file if parts[part] else (None, b"{}") for part in needed}

    def _asked(self, what: str, body: tuple[str, bytes] | None = None, **changed: str) -> Asked:
        """A request with the values that it should have, but for those that are given, as they stand in an address."""
        values = {name: quote(KNOWN[name]) for name in self._parameters if name in KNOWN} | changed
        target = re.sub(r"{(\w+)}", lambda found: values.pop(found[1], "a"), self._path)
        query = "&".join(f"{name}={value}" for name, value in values.items())
        media, content = body or self._form()
        headers = (("Content-Type", media),) if media else ()
        return Asked(f"{self._method} {self._path}", what, self._method, f"{target}?{query}", headers, content)

    def _form(self, **changed: tuple[str | None, bytes]) -> tuple[str, bytes]:
        """Media type and body with the parts that it should have, but for those that are given."""
        parts = self._usual | changed
        if "multipart" in self._media:
            return multipart(parts)
        text = "&".join(f"{name}={quote(content)}" for name, (_, content) in parts.items())
        return self._media, text.encode() if self._parts or not self._media else b"{}"

    def hostile(self) -> Iterator[Asked]:
        """It with every value in every place."""
        usual = self._asked("as it should be")
        yield usual
        for name in self._parameters:
            for text in (*(quote(text, safe="") for text in TEXTS), *ENCODED):
                yield self._asked(f"{name} {text[:40]}", **{name: text})
        for text in _json_of(self._path) if "json" in self._media else ():
            yield self._asked(f"body {text[:40]}", (self._media, text.encode()))
        for part, is_file in self._parts.items():
            for sent in self._sent() if is_file else ((None, text.encode()) for text in _json_of(part)):
                yield self._asked(f"{part} {sent[0] or ''} {sent[1][:40]!r}", self._form(**{part: sent}))
        for name, value in HEADERS:
            others = tuple(header for header in usual.headers if header[0] != name)
            yield replace(usual, what=f"{name}: {value[:40]}", headers=(*others, (name, value)))
        yield from _wrapped(usual)

    def _sent(self) -> list[tuple[str, bytes]]:
        names = [f"{text}{ending}" for text in TEXTS for ending in ("", ".png", ".geojson")]
        return [*files(), *((name, self._file[1]) for name in names)]


def _json_of(place: str) -> list[str]:
    return [*JSON, *(json.dumps({name: value}) for name in FIELDS.get(place, ()) for value in VALUES)]


def _wrapped(usual: Asked) -> Iterator[Asked]:
    """A request with other methods and targets, and its body sent in other ways."""
    for method in ("get", "PATCH", "TRACE", "OPTIONS", "CONNECT", "A" * 300):
        yield replace(usual, what=f"method {method[:9]}", method=method)
    path, _, query = usual.target.partition("?")
    targets = ("/{0}", "/..{0}", "{1}/?{2}", "http://evil.example{0}", "{0}&{2}", "{1}?" + "a=1&" * 3000 + "{2}")
    for target in targets:
        yield replace(usual, what=f"target {target[:40]}", target=target.format(usual.target, path, query))
    body, chunked = usual.body, ("Transfer-Encoding", "chunked")
    whole = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    yield replace(usual, what="chunks", headers=(*usual.headers, chunked), body=whole)
    yield replace(usual, what="half a body", body=body[: len(body) // 2])
    for what, header, content in (
        ("no chunks", chunked, b"zz\r\n" + body), ("half a chunk", chunked, whole[: len(whole) // 2]),
        ("shorter", ("Content-Length", str(len(body) + 9)), body), ("no length", ("Content-Length", "-1"), body),
        ("far shorter", ("Content-Length", "9" * 30), body),
    ):  # fmt: skip
        yield replace(usual, what=what, headers=(*usual.headers, header), body=content, broken=True)


def own_requests(spec: dict[str, Any]) -> Iterator[list[Asked]]:
    """What our values make of each operation, and of paths that the schema does not name."""
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            yield list(_Operation(method.upper(), path, operation, spec).hostile())
    texts = [*(quote(text, safe="") for text in TEXTS), *ENCODED]
    paths = [f"{folder}{text}" for folder in ("/", "/docs/files/", "/static/") for text in texts]
    yield [Asked("GET others", path[:40], "GET", path) for path in paths]


def schema_requests(spec: dict[str, Any], count: int, seed: int) -> list[Asked]:
    """About so many requests by Schemathesis, half of them right by the schema, in which what is known here stands."""
    try:
        import schemathesis
    except ModuleNotFoundError as error:
        raise InputError("Schemathesis is not here; pip install 'lightmuseg[test]', with Python 3.11.") from error

    spec = copy.deepcopy(spec)
    operations = [one for methods in spec["paths"].values() for one in methods.values()]
    for parameter in (one for operation in operations for one in operation.get("parameters", ())):
        if parameter["name"] in KNOWN and parameter["name"] != "output":
            parameter["schema"] = {"type": "string", "enum": [KNOWN[parameter["name"]], f"{MARK} 2"]}
    found = []
    read = [result.ok() for result in schemathesis.openapi.from_dict(spec).get_all_operations()]
    for operation, mode in itertools.product(read, schemathesis.GenerationMode):
        for case in _drawn(operation.as_strategy(generation_mode=mode), math.ceil(count / len(read) / 2), seed):
            made = requests.Request(**case.as_transport_kwargs(base_url="http://127.0.0.1")).prepare()
            headers = tuple(header for header in made.headers.items() if header[0] == "Content-Type")
            body = made.body.encode() if isinstance(made.body, str) else made.body or b""
            what = f"Schemathesis, {mode.value}"
            found.append(Asked(operation.label, what, made.method, made.path_url, headers, body))
    return found


def _drawn(strategy: Any, count: int, seed: int) -> list[Any]:
    """So many values of a strategy of Hypothesis, always the same of one seed."""
    import hypothesis

    drawn = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(strategy)
    def draw(value: Any) -> None:
        drawn.append(value)

    # an operation that takes nothing cannot be asked wrongly
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(hypothesis.errors.Unsatisfiable):
        # which is the working folder otherwise
        hypothesis.configuration.set_hypothesis_home_dir(folder)
        draw()
    return drawn


def chosen(spec: dict[str, Any], count: int, seed: int) -> list[Asked]:
    """So many requests in an order by chance: half of them Schemathesis's, and more of ours where more can be sent."""
    theirs, order, ranked = schema_requests(spec, count // 2, seed), random.Random(seed), []
    for ours in own_requests(spec):
        order.shuffle(ours)
        ranked += [(place / math.sqrt(len(ours)), one) for place, one in enumerate(ours)]
    ranked.sort(key=lambda pair: pair[0])
    found = theirs + [one for _, one in ranked[: max(0, count - len(theirs))]]
    order.shuffle(found)
    return found
