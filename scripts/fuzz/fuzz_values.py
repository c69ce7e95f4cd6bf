"""Hostile values: of parameters, headers, JSON and files; and what is as it should be beside them."""

from __future__ import annotations

import functools
import gzip
import io
import json
import zlib
from typing import Any

import numpy as np
from PIL import Image

# in the names of our pictures, and of files that are not to be
MARK = "fuzzed"
# what a parameter should be
KNOWN = {"model": "lightmuseg", "strategy": "first", "method": "entropy", "tag": "final", "output": "json"}
KNOWN |= dict.fromkeys(("image", "id", "label"), f"{MARK} 1")

TEXTS = (
    "", " ", ".", "..", "*", "-1", "1e300", "NaN", "null", "true", "{}", "9" * 400, "a" * 30_000, "\xe9" * 150, "CON",
    f"../../{MARK}", f"..\\..\\{MARK}", f"/tmp/{MARK}", f"labels/{MARK}", "/etc/passwd", "file:///etc/passwd",
    "md5:0", f"http://127.0.0.1:9/{MARK}", f"a\0{MARK}", "\1\x1b[31m\x7f", f"a\r\n{MARK}: 1", f"\u202e.{MARK}",
    "\ufeff\U0001f600", "' OR 1=1 --", "<script>alert(1)</script>", "${7*7}{{7*7}}<%= 7*7 %>", "=cmd|' /C calc'!A0",
    "%s%n%x", f"$(touch {MARK})`id`;|", "--help", "__class__", "cuda:99", "a.b.c.png",
)  # fmt: skip
# as they stand in an address
ENCODED = (
    "%", "%zz", "%00", "%ff%fe", "%ed%a0%80", "%c0%ae%c0%ae/a", f"..%2f..%2f{MARK}", f"..%252f..%252f{MARK}", "?", "#",
    f"%2e%2e/%2e%2e/{MARK}", "a/b", "+", ";", "a&a=1&a", f"a%0d%0a{MARK}:%201", "%u002e",
)  # fmt: skip
JSON = (
    "", "null", "true", "[]", "{}", "0", '"a"', "NaN", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000, "9" * 5000, "{}{}",
    '{"a":' * 5000 + "1" + "}" * 5000, '{"a": 1, "a": 2}', '"\\ud800"', '{"\\ud800": "\\udfff"}', '{"\\u0000": 0}',
    "\ufeff{}", "{'a': 1}", json.dumps({"__proto__": "a" * 200_000}), json.dumps({str(n): n for n in range(9999)}),
)  # fmt: skip
# of JSON, by the part of a form or the path that takes it
WSI = ("location", "size", "level", "tile_size", "min_poly_area", "params", "output", "image", "model")
FIELDS = {
    "/activelearning/{strategy}": ("image", "patch_size", "strategy", "user"), "/infer/wsi/{model}": WSI, "wsi": WSI,
    "/train/{model}": ("max_epochs", "learning_rate", "batch_size", "held_out", "seed", "use_version", "model"),
    "/scoring/{method}": ("method", "gpus", "bundle_path"),
    "info": ("entropy", "epistemic", "taken", "name", "ts", "bbox"),
    "params": ("bbox", "name", "ts", "user", "location", "size", "level", "image", "output", "save_label", "device"),
}  # fmt: skip
VALUES = (
    None, True, -1, 0, 1, 2**63, 10**400, 1e300, float("inf"), float("nan"), "", "a" * 9999, f"../../{MARK}", "\ud800",
    {}, [], [[]], [0, 0], [-1, -1], [1, 1], [10**12, 10**12], [1.5, "a"], [None] * 4, [0, 0, 9, 9], [[0, 0, 9, 9, "a"]],
    {"score": "a", "patches": 1}, {"score": {}, "patches": [[1]]}, {"error": 1, "score": float("nan")}, {"id": [1]},
    {"patches": [[1e300] * 5]}, functools.reduce(lambda inner, _: [inner], range(500), []),
)  # fmt: skip
HEADERS = tuple(
    (name, value)
    for name, values in {
        "Content-Type": ("", "text/plain", "multipart/form-data", "multipart/form-data; boundary=" + "a" * 999,
                         "application/json; charset=utf-16"),
        "Host": ("", "evil.example", "[::1", "127.0.0.1:1, evil.example"), "Origin": ("null", "http://evil.example"),
        "Range": ("bytes=" + "0-," * 2000, "bytes=9-1", "bytes=-0", "bytes=0-" + "9" * 400), "Upgrade": ("websocket",),
        "Content-Encoding": ("gzip",), "Expect": ("100-continue",), "Authorization": ("Bearer a.b.c",),
        "X": ("a" * 70_000, "\x80" * 99), "X-Forwarded-Host": ("evil.example",), "Cookie": ("a=" * 999,),
    }.items()
    for value in values
)  # fmt: skip
XML = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">{}]><ASAP_Annotations>&z;</ASAP_Annotations>'


def png(pixels: np.ndarray, side: int = 0) -> bytes:
    """A PNG; with ``side`` its header says that it is so large."""
    Image.fromarray(pixels).save(content := io.BytesIO(), "PNG")
    whole = content.getvalue()
    head = whole[12:16] + side.to_bytes(4, "big") * 2 + whole[24:29]
    return whole[:12] + head + zlib.crc32(head).to_bytes(4, "big") + whole[33:] if side else whole


def outline(*points: Any, name: Any = "Tumor") -> bytes:
    """A GeoJSON of one polygon."""
    properties, geometry = {"classification": {"name": name}}, {"type": "Polygon", "coordinates": [points]}
    return json.dumps({"type": "Feature", "geometry": geometry, "properties": properties}).encode()


COLOURS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
PICTURES = {f"{MARK} {number}.png": png(pixels) for number, pixels in enumerate(COLOURS, start=1)}
LABEL = outline((10, 10), (500, 10), (500, 500), (10, 10))


@functools.cache
def files() -> list[tuple[str, bytes]]:
    """Names and contents of files to send."""
    whole, grey = PICTURES[f"{MARK} 2.png"], np.zeros((512, 512), np.uint8)
    tens = "".join(f'<!ENTITY {outer} "{10 * inner}">' for inner, outer in zip(("&a;", "&b;", "&c;", "&d;"), "bcdz"))
    square = [(0, 0), (99, 0), (99, 99)]
    return [
        ("a.png", whole), ("a.png", whole[:300]), ("a.png", b""), ("a.png", png(grey, 2**31 - 1)), ("a.png", png(grey)),
        ("a.png", png(np.zeros((13_000, 13_000), np.uint8))), ("a.png", png(grey + 7)), ("a.png", png(grey[:1, :1])),
        ("a.jpg", b"\xff\xd8\xff"), ("a.ndpi", whole), ("a.mrxs", b""), ("a.exe", b"MZ"), ("a.svs", b"II*\0\x08\0\0\0"),
        ("a.tif", b"II*\0\x08\0\0\0\1\0\0\1\4\0\1\0\0\0\xff\xff\xff\xff\x08\0\0\0"), ("a", LABEL), ("a.geojson", LABEL),
        ("a.gz", gzip.compress(bytes(10**8), mtime=0)), ("a.zip", b"PK\3\4" * 9), ("a.pkl", b"\x80\4cos\nabort\n)R."),
        ("a.tar", f"../../{MARK}".encode().ljust(10_240, b"\0")), ("a.xml", XML.format(tens).encode()),
        ("a.xml", XML.format('<!ENTITY z SYSTEM "file:///etc/passwd">').encode()), ("a.xml", b"<a>" * 50_000),
        ("a.xml", '<?xml version="1.0" encoding="utf-7"?><a/>'.encode("utf-16")), ("a.xml", b"<ASAP_Annotations/>"),
        ("a.geojson", outline((0, 0), (99, 99), (99, 0), (0, 99), (0, 0))),
        ("a.geojson", outline(*((n % 512, n * 7 % 512) for n in range(20_000)))),
        *(("a.json", text.encode()) for text in JSON),
        *(("a.geojson", outline(*square, one)) for one in VALUES),
        *(("a.geojson", outline(*square, name=one)) for one in VALUES),
    ]  # fmt: skip
