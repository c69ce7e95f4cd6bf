"""The page's addresses, and the answers at each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lightmuseg.classes import UNREAD, UNREAD_COLOUR, palette_of
from lightmuseg.errors import InputError, user_fault
from lightmuseg.guard import REPORT_POLICY, Guard
from lightmuseg.wsi.readers import SlideReader

from .addresses import classes_of, number_of, tile_of
from .map_tiles import ClassMap, map_tile
from .open_files import OpenFiles
from .region_index import RegionIndex
from .result_list import Result, Results
from .thumbnails import thumbnail_of
from .zoom_tiles import TILE, levels_of, open_result_slide, slide_tile

STATIC = Path(__file__).parent / "static"
# Answers that are made at once; each may hold the pixels of one tile.
THREADS = 2 + (os.cpu_count() or 1)
# What stays open: slides and maps; bytes of a picture that count as one slide; bytes of GeoJSON.
OPEN_SLIDES, OPEN_MAPS, PICTURE_BYTES, REGION_BYTES = 4, 16, 150_000_000, 200_000_000
THUMBNAILS = 4096
# The version of a result is in its tiles' addresses, so they stay true.
LASTING, FRESH = "private, max-age=86400", {"Cache-Control": "private, no-cache"}


class AsciiJSON(JSONResponse):
    """JSON in ASCII: names of files and texts of records may hold what UTF-8 has no bytes for."""

    def render(self, content: Any) -> bytes:
        """The bytes of plain values."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class _FreshFiles(StaticFiles):
    """Files of the page, which a browser asks for again after an update."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(FRESH)
        return response


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
        Route("/", lambda request: FileResponse(STATIC / "index.html", headers=FRESH)),
        Mount("/static", _FreshFiles(directory=STATIC)),
        Route("/results", view.listing),
        Route(result, view.details),
        Route(result + "/region", _one_at_a_time(view.region)),
        Route(result + "/report.html", view.report),
        Route(result + "/{version}/thumbnail.jpg", _one_at_a_time(view.thumbnail)),
        Route(result + "/{version}/slide/{level}/{column}/{row}.jpg", view.slide_tile),
        Route(result + "/{version}/map/{shown}/{level}/{column}/{row}.png", view.map_tile),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, host=host, methods=("GET", "HEAD"))],
        lifespan=lifespan,
        exception_handlers={InputError: _not_found, OSError: _not_found},
    )


class View:
    """Answers; every one is made from the results' files, in a thread of its own."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.slides: OpenFiles[Result, SlideReader] = OpenFiles(open_result_slide, OPEN_SLIDES, _slide_cost)
        self.maps: OpenFiles[Result, ClassMap] = OpenFiles(ClassMap, OPEN_MAPS)
        self.regions: OpenFiles[Result, RegionIndex] = OpenFiles(RegionIndex, REGION_BYTES, attrgetter("bytes"))
        self._thumbnail = lru_cache(THUMBNAILS)(thumbnail_of)

    def close(self) -> None:
        """Close all files."""
        for opened in (self.slides, self.maps, self.regions):
            opened.close()

    def listing(self, request: Request) -> Response:
        """All results in short, as they are now."""
        results = [
            {
                "id": result.id, "version": result.version, "place": result.place, "areas_mm2": result.areas_mm2,
                "warnings": len(result.warnings),
            }
            for result in self.results.refresh()
        ]  # fmt: skip
        response = AsciiJSON({
            "folder": self.results.root.name, "results": results, "failed": self.results.failed,
            "skipped": self.results.skipped,
        }, headers=FRESH)  # fmt: skip
        return _unless_known(request, bytes(response.body), lambda: response)

    def details(self, request: Request) -> Response:
        """All about one result: where its tiles are, what its classes are, what cannot be shown and why."""
        result = self._result(request)
        slide, slide_fault = _levels(self.slides, result, levels_of)
        classes, map_fault = _levels(self.maps, result, attrgetter("levels"))
        palette = palette_of(result.class_names)
        shown = [(index, name, palette[index]) for index, name in enumerate(result.class_names, start=1)]
        if result.areas_mm2.get("unread"):
            shown.append((UNREAD, "unread", UNREAD_COLOUR))
        return AsciiJSON({
            "id": result.id, "version": result.version, "place": result.place, "tile": TILE,
            "slide": {"path": str(result.slide), "levels": slide, "fault": slide_fault},
            "map": {"levels": classes, "fault": map_fault, "downsample": result.map_mpp / result.level0_mpp},
            "level0_size": result.level0_size, "level0_mpp": result.level0_mpp,
            "classes": [
                {"index": index, "name": name, "colour": colour, "area_mm2": result.areas_mm2.get(name)}
                for index, name, colour in shown
            ],
            "areas_mm2": result.areas_mm2, "warnings": result.warnings, "report": result.has_report,
        }, headers=FRESH)  # fmt: skip

    def slide_tile(self, request: Request) -> Response:
        """Pixels of the slide."""
        result = self._result(request)

        def make() -> bytes:
            with self.slides.using(result) as reader:
                return slide_tile(reader, tile_of(request, levels_of(reader)))

        return _lasting(request, "image/jpeg", make)

    def map_tile(self, request: Request) -> Response:
        """Pixels of the map, in the colours of the classes that are shown."""
        result = self._result(request)
        shown = classes_of(request.path_params["shown"], len(result.class_names))

        def make() -> bytes:
            with self.maps.using(result) as class_map:
                return map_tile(class_map.classes(tile_of(request, class_map.levels)), result.class_names, shown)

        return _lasting(request, "image/png", make)

    def thumbnail(self, request: Request) -> Response:
        """A small picture for the list."""
        result = self._result(request)
        return _lasting(request, "image/jpeg", lambda: self._thumbnail(result))

    def region(self, request: Request) -> Response:
        """The region at a place of the slide (x0, y0), with its area and its outline to ``step0`` level-0 pixels."""
        result = self._result(request)
        x0, y0, step0 = (number_of(request, name) for name in ("x0", "y0", "step0"))
        if step0 <= 0:
            raise HTTPException(400, "step0: give a number above 0")
        with self.regions.using(result) as index:
            found = index.at(x0, y0, step0)
        if found is not None:
            found["area_um2"] = found.pop("area0") * result.level0_mpp**2
        return AsciiJSON(found, headers=FRESH)

    def report(self, request: Request) -> Response:
        """The page to print."""
        path = self._result(request).file("report.html")
        return FileResponse(path, media_type="text/html", headers={**FRESH, "Content-Security-Policy": REPORT_POLICY})

    def _result(self, request: Request) -> Result:
        """The result that an address names, by its id and, where there is one, its version."""
        result = self.results.get(request.path_params["id"])
        if result is None:
            raise InputError("there is no such result; reload the page")
        if request.path_params.get("version", result.version) != result.version:
            raise InputError("the result was made anew; reload the page")
        return result


def _one_at_a_time(answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """What takes long where there is much of it, such as the first look at regions, so that tiles need not wait."""
    limiter = anyio.CapacityLimiter(1)

    async def limited(request: Request) -> Response:
        return await anyio.to_thread.run_sync(answer, request, limiter=limiter)

    return limited


def _not_found(request: Request, error: Exception) -> Response:
    return AsciiJSON({"detail": user_fault(error)}, status_code=404)


def _levels(
    files: OpenFiles, result: Result, levels_of: Callable[[Any], Any]
) -> tuple[dict[str, int] | None, str | None]:
    """The levels of tiles of a slide or a map, or why there are none."""
    try:
        with files.using(result) as opened:
            return vars(levels_of(opened)), None
    except (InputError, OSError) as error:
        return None, user_fault(error)


def _lasting(request: Request, kind: str, make: Callable[[], bytes]) -> Response:
    """What stays true for an address with a version."""
    headers = {"Cache-Control": LASTING}
    return _unless_known(request, request.url.path.encode(), lambda: Response(make(), media_type=kind, headers=headers))


def _unless_known(request: Request, identity: bytes, make: Callable[[], Response]) -> Response:
    """The response with a tag made of ``identity``, or 304 where the browser has what has this tag."""
    tag = f'"{hashlib.sha256(identity).hexdigest()[:24]}"'
    response = Response(status_code=304) if tag in request.headers.get("if-none-match", "") else make()
    response.headers["ETag"] = tag
    return response


def _slide_cost(reader: SlideReader) -> float:
    """A picture is held in memory whole, other slides by their tables of tiles."""
    base = reader.levels[0]
    return max(1.0, 3 * base.width * base.height / PICTURE_BYTES) if reader.backend == "image" else 1.0
