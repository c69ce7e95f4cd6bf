"""Results in a browser: one local page that shows slides with their maps, and changes nothing."""

from .view_server import serve

__all__ = ["serve"]
