"""The command that shows results."""

from __future__ import annotations

from pathlib import Path


def view(folder: str, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Show results in a browser, until Ctrl-C: slides under their maps, areas, regions, and a list of all.

    Nothing is changed, and only this computer is let in.

    Args:
        folder: the output of 'lightmuseg segment' or 'lightmuseg cohort'; results are found at any depth.
        host: address to listen at; another than 127.0.0.1 lets others in, who need no password.
        port: to listen at; 0 for a free one.
    """
    from lightmuseg.view import serve

    def started(address: str, results: int) -> None:
        found = (
            f"{results} result{'s' * (results > 1)}" if results else "no results yet; reload the page when there are"
        )
        print(f"{address} shows {folder}: {found}. Ctrl-C ends it.", flush=True)

    serve(Path(folder), host, port, started)
