"""A stand-in of the servers that have BCSS, built from their public documentation, which fails as it is told to.

figshare redirects a file's number to where its bytes are; the GDC answers POST /files with hits and GET /data/ID with
bytes, also from a place on; Girder has items, and large_image's tiles, tiles/region and sizes in mm.
"""

import hashlib
import io
import json
import re
import threading
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import tifffile
from PIL import Image

# um/px of its slides; BCSS's pictures have 0.30
SLIDE_MPP = 0.25
COLUMNS = ("region", "xmin", "ymin", "xmax", "ymax", "mask", "slide", "item")


def picture(width, height, seed):
    """A smooth picture, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class StandIn:
    """The servers' content by their names, and what goes wrong.

    ``wrong`` holds for the start of a path what happens to the next requests for it, one after the other: a status, or
    "cut" in the middle.
    """

    def __init__(self):
        self.masks, self.slides, self.names, self.files = {}, {}, {}, {}
        self.wrong, self.asked, self.rows = {}, [], []
        self.knows_ranges = self.knows_items = True
        self.lock = threading.Lock()

    def add(self, name, place0, pixels, codes):
        """A slide with a region at ``place0`` (x0, y0), and that region's mask at the slide's um/px."""
        number, item = str(13_000_000 + len(self.rows)), f"5bbdee{len(self.rows):018x}"
        slide = f"{name[:12]}-01Z-00-{name[13:]}.{str(uuid.uuid5(uuid.NAMESPACE_DNS, name)).upper()}.svs"
        (x0, y0), (height0, width0) = place0, codes.shape
        self.rows.append((name, x0, y0, x0 + width0, y0 + height0, number, slide, item))
        self.masks[number], self.slides[item], self.names[item] = png(codes), pixels, slide
        file = io.BytesIO()
        tifffile.imwrite(
            file, pixels, tile=(256, 256), photometric="rgb", compression="adobe_deflate",
            resolution=(10_000 / SLIDE_MPP,) * 2, resolutionunit="CENTIMETER",
        )  # fmt: skip
        self.add_file(slide, file.getvalue())
        return slide

    def add_file(self, name, content, **fields):
        """A file at the GDC; ``fields`` are stated of it instead of the true ones."""
        about = {
            "file_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}{len(self.files)}")), "file_name": name,
            "file_size": len(content), "md5sum": hashlib.md5(content).hexdigest(), "cases.submitter_id": name[:12],
            "data_format": "SVS", "experimental_strategy": "Diagnostic Slide", **fields,
        }  # fmt: skip
        self.files[about["file_id"]] = about, content

    def write_table(self, path):
        path.write_text("\n".join(",".join(map(str, row)) for row in [COLUMNS, *self.rows]) + "\n", encoding="utf-8")

    def counted(self, start):
        return sum(path.startswith(start) for path, _ in self.asked)

    @contextmanager
    def served(self):
        """The environment that names the servers."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"world": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        try:
            yield {
                "LIGHTMUSEG_GDC": f"{here}/gdc", "LIGHTMUSEG_REGION_SERVER": f"{here}/girder/api/v1/",
                "LIGHTMUSEG_FIGSHARE": f"{here}/figshare", "no_proxy": "127.0.0.1",
            }  # fmt: skip
        finally:
            server.shutdown()
            server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    world: StandIn

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, query):
        path = urlsplit(self.path).path
        with self.world.lock:
            self.world.asked.append((path, self.headers.get("Range")))
            wrong = next((faults for start, faults in self.world.wrong.items() if path.startswith(start)), [])
            fault = wrong.pop(0) if wrong else None
        if isinstance(fault, int):
            self.send(fault, b"{}", {"Retry-After": "0"})
            return
        words = parse_qs(urlsplit(self.path).query)
        for pattern, method in (
            (r"/figshare/files/(\d+)", self.link), (r"/store/(\d+)\.png", self.mask), (r"/gdc/files", self.hits),
            (r"/gdc/data/([\w-]+)", self.data), (r"/girder/api/v1/item/(\w+)", self.item),
            (r"/girder/api/v1/item/(\w+)/tiles", self.tiles), (r"/girder/api/v1/item/(\w+)/tiles/region", self.region),
            (r"/girder/api/v1/resource/search", self.search),
        ):  # fmt: skip
            if found := re.fullmatch(pattern, path):
                status, content, headers = method(*found.groups(), query=query, words=words)
                self.send(status, content, headers, fault == "cut")
                return
        self.send(404, b"{}", {})

    def send(self, status, content, headers, is_cut=False):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)

    def json(self, content, status=200):
        return status, json.dumps(content).encode(), {"Content-Type": "application/json"}

    def link(self, number, **_):
        return 302, b"", {"Location": f"/store/{number}.png"}

    def mask(self, number, **_):
        content = self.world.masks.get(number)
        return (404, b"", {}) if content is None else (200, content, {"Content-Type": "image/png"})

    def hits(self, query, **_):
        wanted = {one["content"]["field"]: one["content"]["value"] for one in query["filters"]["content"]}
        fields = query["fields"].split(",")
        found = [about for about, _ in self.world.files.values() if all(about[key] in wanted[key] for key in wanted)]
        hits = [{"id": about["file_id"], **{name: about[name] for name in fields}} for about in found]
        return self.json({"data": {"hits": hits[: int(query["size"])], "pagination": {"total": len(hits)}}})

    def data(self, file_id, **_):
        content = self.world.files[file_id][1]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not asked or not self.world.knows_ranges:
            return 200, content, {}
        start = int(asked[1])
        return 206, content[start:], {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}

    def item(self, item, **_):
        if item not in self.world.names or not self.world.knows_items:
            return self.json({"message": "Invalid item id.", "type": "validation"}, 400)
        return self.json({"_id": item, "_modelType": "item", "name": self.world.names[item]})

    def search(self, words, **_):
        found = [item for item, name in self.world.names.items() if name in words["q"][0]]
        return self.json({"item": [{"_id": item, "name": self.world.names[item]} for item in found]})

    def tiles(self, item, **_):
        height, width = self.world.slides[item].shape[:2]
        mm = SLIDE_MPP / 1000
        return self.json({"sizeX": width, "sizeY": height, "mm_x": mm, "mm_y": mm, "magnification": 40.0, "levels": 3})

    def region(self, item, words, **_):
        left, top, right, bottom = (int(words[name][0]) for name in ("left", "top", "right", "bottom"))
        assert words["units"] == ["base_pixels"]
        assert words["encoding"] == ["PNG"]
        step = float(words["mm_x"][0]) * 1000 / SLIDE_MPP
        size = int((right - left) / step + 1e-9), int((bottom - top) / step + 1e-9)
        cut = Image.fromarray(self.world.slides[item][top:bottom, left:right])
        return 200, png(np.asarray(cut.resize(size, Image.Resampling.LANCZOS))), {"Content-Type": "image/png"}
