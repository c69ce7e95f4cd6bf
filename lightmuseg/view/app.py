"""The page's addresses, and what is answered at each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lightmuseg.classes import UNREAD, UNREAD_COLOUR, palette_of
from lightmuseg.errors import InputError, user_fault
from lightmuseg.guard import REPORT_POLICY, Guard
from lightmuseg.wsi.readers import SlideReader

from .addresses import classes_asked, number_asked, tile_asked
from .handles import Pool
from .map_tiles import ClassMap, map_tile
from .region_index import RegionIndex
from .result_list import Result, Results
from .thumbnails import thumbnail_of
from .zoom_tiles import TILE, levels_of, open_result_slide, slide_tile

STATIC = Path(__file__).parent / "static"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Answers that are made at once; each may hold the pixels of one tile.
THREADS = 2 + (os.cpu_count() or 1)
# What stays open: slides and maps; bytes of a picture that count as one slide; bytes of GeoJSON.
OPEN_SLIDES, OPEN_MAPS, PICTURE_BYTES, REGION_BYTES = 4, 16, 150_000_000, 200_000_000
THUMBNAILS = 4096
MAX_REPORT_BYTES = 100_000_000
# The version of a result is in its tiles' addresses, so they stay true.
LASTING, FRESH = "private, max-age=86400", "private, no-cache"


class Plain(JSONResponse):
    """JSON in ASCII: names of files and texts of records may hold what UTF-8 has no bytes for."""

    def render(self, content: Any) -> bytes:
        """The bytes of plain values."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def make_app(results: Results, host: str) -> Starlette:
    """The server of a folder of results, for a browser on ``host``."""
    view = View(results)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        view.close()

    result = "/results/{id}"
    routes = [
        Route("/", view.page),
        Route("/static/{name}", view.static),
        Route("/results", view.listing),
        Route(result, view.details),
        Route(result + "/region", _one_at_a_time(view.region)),
        Route(result + "/report.html", view.report),
        Route(result + "/{version}/thumbnail.jpg", _one_at_a_time(view.thumbnail)),
        Route(result + "/{version}/slide/{level}/{column}/{row}.jpg", view.slide_tile),
        Route(result + "/{version}/map/{shown}/{level}/{column}/{row}.png", view.map_tile),
    ]
    faults = {InputError: _not_there, OSError: _not_there}
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, host=host, methods=("GET", "HEAD"))],
        lifespan=lifespan,
        exception_handlers=faults,
    )


class View:
    """Answers; every one is made from the results' files, in a thread of its own.

    Args:
        results: those that are shown.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.slides: Pool[Result, SlideReader] = Pool(open_result_slide, OPEN_SLIDES, _slide_cost)
        self.maps: Pool[Result, ClassMap] = Pool(ClassMap, OPEN_MAPS)
        self.regions: Pool[Result, RegionIndex] = Pool(
            lambda result: RegionIndex(result.file("regions.geojson")), REGION_BYTES, lambda index: index.bytes
        )
        self._thumbnail = lru_cache(THUMBNAILS)(thumbnail_of)
        self._static = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in _KINDS}

    def close(self) -> None:
        """Let all files go."""
        for pool in (self.slides, self.maps, self.regions):
            pool.close()

    def page(self, request: Request) -> Response:
        """The one page."""
        return self._file(request, "index.html")

    def static(self, request: Request) -> Response:
        """What the page is made of."""
        return self._file(request, request.path_params["name"])

    def _file(self, request: Request, name: str) -> Response:
        if name not in self._static:
            raise HTTPException(404)
        content = self._static[name]
        return _answer(request, _tag(content), FRESH, _KINDS[Path(name).suffix], lambda: content)

    def listing(self, request: Request) -> Response:
        """All results in short, as they are now."""
        results = [
            {
                "id": result.id,
                "version": result.version,
                "place": result.place,
                "areas_mm2": result.areas_mm2,
                "warnings": len(result.warnings),
            }
            for result in self.results.refresh()
        ]
        content = Plain({
            "folder": self.results.root.name, "results": results, "failed": self.results.failed,
            "skipped": self.results.skipped,
        }).body  # fmt: skip
        return _answer(request, _tag(content), FRESH, "application/json", lambda: content)

    def details(self, request: Request) -> Response:
        """All about one result: where its tiles are, what its classes are, what cannot be shown and why."""
        result = self._result(request)
        slide, slide_fault = _tried(lambda: self._slide_levels(result))
        classes, map_fault = _tried(lambda: self._map_levels(result))
        colours = dict(enumerate(palette_of(result.class_names)))
        names = dict(enumerate(["", *result.class_names]))
        indices = [*range(1, len(names)), *([UNREAD] if result.areas_mm2.get("unread") else [])]
        return Plain({
            "id": result.id,
            "version": result.version,
            "place": result.place,
            "slide": {"path": str(result.slide), "levels": slide, "fault": slide_fault},
            "map": {"levels": classes, "fault": map_fault, "downsample": result.map_mpp / result.level0_mpp},
            "tile": TILE,
            "level0_size": result.level0_size,
            "level0_mpp": result.level0_mpp,
            "classes": [
                {
                    "index": index,
                    "name": names.get(index, "unread"),
                    "colour": colours.get(index, UNREAD_COLOUR),
                    "area_mm2": result.areas_mm2.get(names.get(index, "unread")),
                }
                for index in indices
            ],
            "areas_mm2": result.areas_mm2,
            "warnings": result.warnings,
            "report": result.has_report,
        }, headers={"Cache-Control": FRESH})  # fmt: skip

    def _slide_levels(self, result: Result) -> dict[str, int]:
        with self.slides.using(result) as reader:
            return vars(levels_of(reader))

    def _map_levels(self, result: Result) -> dict[str, int]:
        with self.maps.using(result) as class_map:
            return vars(class_map.levels)

    def slide_tile(self, request: Request) -> Response:
        """Pixels of the slide."""
        result = self._versioned(request)

        def make() -> bytes:
            with self.slides.using(result) as reader:
                levels = levels_of(reader)
                level, box = tile_asked(request, levels)
                return slide_tile(reader, 2 ** (levels.max_level - level), box)

        return _answer(request, _tag(request.url.path.encode()), LASTING, "image/jpeg", make)

    def map_tile(self, request: Request) -> Response:
        """Pixels of the map, in the colours of the classes that are shown."""
        result = self._versioned(request)
        shown = classes_asked(request.path_params["shown"], len(result.class_names))

        def make() -> bytes:
            with self.maps.using(result) as class_map:
                return map_tile(class_map.classes(*tile_asked(request, class_map.levels)), result.class_names, shown)

        return _answer(request, _tag(request.url.path.encode()), LASTING, "image/png", make)

    def thumbnail(self, request: Request) -> Response:
        """A small picture for the list."""
        result = self._versioned(request)
        tag = _tag(request.url.path.encode())
        return _answer(request, tag, LASTING, "image/jpeg", lambda: self._thumbnail(result))

    def region(self, request: Request) -> Response:
        """The region at a place of the slide (x0, y0), with its area and its outline to ``step0`` level-0 pixels."""
        result = self._result(request)
        x0, y0, step0 = (number_asked(request, name) for name in ("x0", "y0", "step0"))
        if step0 <= 0:
            raise HTTPException(400, "step0: give a number above 0")
        with self.regions.using(result) as index:
            found = index.at(x0, y0, step0)
        if found is not None:
            found["area_um2"] = found.pop("area0") * result.level0_mpp**2
        return Plain(found, headers={"Cache-Control": FRESH})

    def report(self, request: Request) -> Response:
        """The page to print."""
        path = self._result(request).file("report.html")
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise HTTPException(404, "it is larger than a report is")
        headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": FRESH}
        return Response(path.read_bytes(), media_type="text/html", headers=headers)

    def _result(self, request: Request) -> Result:
        result = self.results.get(request.path_params["id"])
        if result is None:
            raise HTTPException(404, "there is no such result; reload the page")
        return result

    def _versioned(self, request: Request) -> Result:
        result = self._result(request)
        if request.path_params["version"] != result.version:
            raise HTTPException(404, "the result was made anew; reload the page")
        return result


def _one_at_a_time(answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """What takes long where there is much of it, such as the first look at regions, so that tiles need not wait."""
    limiter = anyio.CapacityLimiter(1)

    async def limited(request: Request) -> Response:
        return await anyio.to_thread.run_sync(answer, request, limiter=limiter)

    return limited


def _not_there(request: Request, error: Exception) -> Response:
    return Plain({"detail": user_fault(error)}, status_code=404)


def _tried(look: Callable[[], dict[str, int]]) -> tuple[dict[str, int] | None, str | None]:
    """What is found, or why there is nothing."""
    try:
        return look(), None
    except (InputError, OSError) as error:
        return None, user_fault(error)


def _answer(request: Request, tag: str, lasts: str, kind: str, make: Callable[[], bytes]) -> Response:
    """The content, or that what the browser has is still true."""
    headers = {"ETag": tag, "Cache-Control": lasts}
    if tag in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=kind, headers=headers)


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:24]}"'


def _slide_cost(reader: Any) -> float:
    """A picture is held in memory whole, other slides by their tables of tiles."""
    base = reader.levels[0]
    return max(1.0, 3 * base.width * base.height / PICTURE_BYTES) if reader.backend == "image" else 1.0
