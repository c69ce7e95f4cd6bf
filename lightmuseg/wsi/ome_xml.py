"""What OME-XML says of the pictures in a TIFF.

Reference: OME data model 2016-06, https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

logger = logging.getLogger(__name__)

# A description of very many planes has some MB.
MAX_CHARACTERS = 64_000_000
MAX_PLANES, MAX_PLACES = 1000, 100_000
_UM_PER_UNIT = {
    "pm": 1e-6, "nm": 1e-3, "um": 1.0, "\u00b5m": 1.0, "\u03bcm": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6,
    "in": 25_400.0, "\u00c5": 1e-4, "thou": 25.4, "mil": 25.4,
}  # fmt: skip
_NEUTRAL_CHANNEL = re.compile(r"(red|green|blue|[rgb]|rgb|tl brightfield|brightfield|(channel|c)[ :_-]*\d+|\d*)", re.I)


@dataclass
class OmeImage:
    """An Image of OME-XML: its Name, else its ID, and what is in it.

    ``pixels`` are the attributes of its Pixels, ``channels`` the names of its channels, ``places`` those of its planes
    in the TIFF: attributes of TiffData with the UUID of the file as "UUID".
    """

    name: str
    pixels: Mapping[str, str] = field(default_factory=dict)
    channels: list[str] = field(default_factory=list)
    places: list[dict[str, str]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._count("SizeX"), self._count("SizeY")

    @property
    def mpps(self) -> tuple[float, float] | None:
        """um/px along x and y, of one of them where the other is missing; None where there are none."""
        stated = [self._mpp(axis) for axis in "XY" if f"PhysicalSize{axis}" in self.pixels]
        return None if not stated or None in stated else (stated[0], stated[-1])

    def planes(self, file_uuid: str, samples: int, following: int) -> dict[tuple[int, int], list[int]]:
        """The numbers of the pages of each z and t, in the order of their channels.

        Planes in files of another UUID are left out. Pages have ``samples`` channels; where an image does not say at
        which page it begins, that is ``following``.
        """
        counts = {axis: max(1, self._count(f"Size{axis}")) for axis in "CZT"}
        counts["C"] = max(1, counts["C"] // (samples or 1))
        order = [axis for axis in self.pixels.get("DimensionOrder", "XYCZT")[2:] if axis in counts]
        total = min(MAX_PLANES, math.prod(counts.values()))
        found: dict[tuple[int, int], dict[int, int]] = {}
        steps = 0
        for place in self.places or [{}]:
            if file_uuid and place.get("UUID", file_uuid) != file_uuid:
                continue
            start, step = 0, 1
            for axis in order:
                start += step * _whole(place.get(f"First{axis}"), 0)
                step *= counts[axis]
            first = _whole(place.get("IFD"), following)
            count = _whole(place.get("PlaneCount"), 1 if "IFD" in place else total)
            for number in range(max(0, min(count, total - start, MAX_PLANES - steps))):
                steps += 1
                index, rest = {}, start + number
                for axis in order:
                    rest, index[axis] = divmod(rest, counts[axis])
                found.setdefault((index.get("Z", 0), index.get("T", 0)), {})[index.get("C", 0)] = first + number
        return {place: [pages[channel] for channel in sorted(pages)] for place, pages in sorted(found.items())}

    @property
    def is_in_colours(self) -> bool:
        """Whether three channels can be red, green and blue: none of them is called otherwise."""
        return all(_NEUTRAL_CHANNEL.fullmatch(name.strip()) for name in self.channels)

    def _count(self, name: str) -> int:
        return _whole(self.pixels.get(name), 1)

    def _mpp(self, axis: str) -> float | None:
        um = _UM_PER_UNIT.get(self.pixels.get(f"PhysicalSize{axis}Unit", "um").strip())
        try:
            size = float(self.pixels[f"PhysicalSize{axis}"].replace(",", "."))
        except ValueError:
            return None
        # a number in pixels says nothing; one of 0 or less is kept, to be refused
        return None if um is None or not math.isfinite(size) else size * um


def ome_images(path: Path, text: str) -> tuple[list[OmeImage], str]:
    """The images of OME-XML, and the UUID of the file; none, with a warning, where it is no XML or declares entities.

    >>> images, _ = ome_images(Path(), "<OME><Image ID='a'><Pixels PhysicalSizeX='0.5'/></Image></OME>")
    >>> images[0].name, images[0].mpps
    ('a', (0.5, 0.5))
    """
    images: list[OmeImage] = []
    uuids = [""]
    inside: list[str] = []
    words: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        parent = inside[-1] if inside else ""
        inside.append(tag)
        words.clear()
        if parent == "" and tag == "OME":
            uuids[0] = attributes.get("UUID", "").strip().lower()
        elif (parent, tag) == ("OME", "Image"):
            images.append(OmeImage(attributes.get("Name") or attributes.get("ID", "")))
        elif (parent, tag) == ("Image", "Pixels"):
            images[-1].pixels = attributes
        elif (parent, tag) == ("Pixels", "Channel"):
            images[-1].channels.append(attributes.get("Name", ""))
        elif (parent, tag) == ("Pixels", "TiffData"):
            images[-1].places.append(attributes)
            if len(images[-1].places) > MAX_PLACES:
                raise ValueError(f"it places more than {MAX_PLACES} pages")

    def end(tag: str) -> None:
        if inside.pop() == "UUID" and inside and inside[-1] == "TiffData":
            images[-1].places[-1]["UUID"] = "".join(words).strip().lower()

    def refused(*_: object) -> None:
        raise ValueError("it declares a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, words.append
    # entities, which can fill the memory, are declared there
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refused
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"it has {len(text)} characters")
        parser.Parse(text.strip(" \0\r\n\t\ufeff"), True)
    except (expat.ExpatError, ValueError, IndexError) as error:
        logger.warning(f"{path}: its OME-XML is left out: {error}.")
        return [], ""
    return list(itertools.islice(images, MAX_PLANES)), uuids[0]


def _whole(text: str | None, default: int) -> int:
    try:
        return default if text is None else max(0, int(text))
    except ValueError:
        return default
