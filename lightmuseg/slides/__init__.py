"""Whole slides in, maps out."""

from .options import Options
from .segmenter import SlideSegmenter

__all__ = ["Options", "SlideSegmenter"]
