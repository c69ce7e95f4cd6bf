"""Slides as pixels: one interface, and what opens which file."""

from .opening import open_slide
from .reader import WHITE, Level, SlideReader, UnreadablePixels

__all__ = ["WHITE", "Level", "SlideReader", "UnreadablePixels", "open_slide"]
