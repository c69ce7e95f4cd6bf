"""The command that shows results."""

from __future__ import annotations

from pathlib import Path

from .arguments import number


def view(folder: str, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Show results in a browser, until Ctrl-C: slides under their maps, areas, regions, and a list of all.

    Nothing is changed, and only this computer is let in.

    Args:
        folder: the output of 'lightmuseg segment' or 'lightmuseg cohort'; results are found at any depth.
        host: address to listen at; another than 127.0.0.1 lets others in, who need no password.
        port: to listen at; 0 for a free one.
    """
    from lightmuseg.view import serve

    serve(Path(folder), host, number("port", port, int))
