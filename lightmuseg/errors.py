"""Faults of the input, told apart from bugs, and how a command reports them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot be used; the message names the file, the value and the remedy."""


def first_line(error: BaseException) -> str:
    """What an error says, short enough to stand in another message; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def refuse_text_for_truth(options: Mapping[str, Any]) -> None:
    """Raise an InputError where an option's value is the text "true" or "false", which Python takes for true.

    MONAI's command line reads ``True`` and ``False`` as truth values, and other spellings as text.
    """
    for name, value in options.items():
        if isinstance(value, str) and value.lower() in ("true", "false"):
            raise InputError(f"--{name} {value}: is read as text; write {value.capitalize()}.")


def user_fault(error: BaseException | None) -> str | None:
    """The line to show for ``error`` or for the fault it was raised from; None where it is a bug."""
    while error is not None:
        # A loader's worker process sends its error back as a traceback's text, in an error of the outermost kind.
        marker = f"{InputError.__module__}.InputError: "
        from_worker = [line.removeprefix(marker) for line in str(error).splitlines() if line.startswith(marker)]
        if from_worker:
            return from_worker[-1]
        if isinstance(error, InputError):
            return " ".join(str(error).split())
        if isinstance(error, OSError) and error.strerror:
            return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        if isinstance(error, TimeoutError):
            # as a lock's, which another process holds
            return first_line(error)
        if _is_missing_package(error):
            return first_line(error)
        error = error.__cause__
    return None


def _is_missing_package(error: BaseException) -> bool:
    """Whether a package that an option needs is not installed; a name that is not in one that is there is a bug."""
    if any(kind.__name__ == "OptionalImportError" for kind in type(error).__mro__):
        # as MONAI says it
        return True
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] != "lightmuseg"


def report_faults_in_one_line() -> None:
    """Make the running command end a user's fault in one line on stderr and exit status 1.

    Bugs keep their traceback. Called by the commands and by the bundle's configs, never by library code.
    """
    # The engine logs the exception it passes on; the line below says it already.
    logging.getLogger("ignite").setLevel(logging.CRITICAL)

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            print("\nlightmuseg: interrupted", file=sys.stderr)
            return
        line = user_fault(error)
        if line is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"\nlightmuseg: error: {line}", file=sys.stderr)

    sys.excepthook = hook
