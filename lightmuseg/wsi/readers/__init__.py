"""Slides as pixels: one interface, and what opens which file."""

from .image import ArrayReader
from .opening import kept_open, open_slide
from .reader import WHITE, Level, SlideReader, UnreadablePixels

__all__ = ["WHITE", "ArrayReader", "Level", "SlideReader", "UnreadablePixels", "kept_open", "open_slide"]
