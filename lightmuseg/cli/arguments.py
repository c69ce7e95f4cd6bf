"""Words of the command line, before and after Fire reads them."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from lightmuseg.errors import InputError

T = TypeVar("T", bound=Callable[..., Any])


def checked(words: list[str], commands: dict[str, Any]) -> list[str]:
    """The words of a command line as Fire is to read them: values of the options' types, and no unknown options.

    Fire would read a folder named 2024 as a number, and would run a command before it complains of an option that
    the command does not have.

    Raises:
        InputError: for an unknown option, or a value that is not of its option's type.
    """
    command: Any = commands
    depth = 0
    for word in words:
        name = word.replace("-", "_")
        child = command.get(name) if isinstance(command, dict) else getattr(command, name, None)
        if inspect.isroutine(command) or word.startswith(("-", "_")) or child is None:
            break
        command, depth = child, depth + 1
    if not inspect.isroutine(command):
        return words
    name = " ".join(["lightmuseg", *words[:depth]])
    return [*words[:depth], *_arguments(words[depth:], inspect.signature(command).parameters, name)]


def _arguments(words: list[str], options: Mapping[str, inspect.Parameter], command: str) -> Iterator[str]:
    kinds = {
        name: str(option.annotation).partition(" ")[0]
        for name, option in options.items()
        if option.kind is not inspect.Parameter.VAR_POSITIONAL
    }
    positional = [name for name, one in options.items() if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    rest = deque(words)
    while rest:
        word = rest.popleft()
        option, equals, value = word.removeprefix("--").partition("=")
        option = option.replace("-", "_")
        positive = option.removeprefix("no_")
        if word in ("--", "--help", "-h"):
            yield word
        elif not word.startswith("--"):
            name = positional.pop(0) if positional else ""
            yield repr(_value(name, word, kinds.get(name, "str")))
        elif positive != option and not equals and kinds.get(positive) == "bool":
            yield f"--{positive}=False"
        elif option not in kinds:
            raise InputError(f"{word}: '{command}' has no such option; see '{command} --help'.")
        elif kinds[option] == "bool" and not equals:
            yield f"--{option}=True"
        elif not equals and (not rest or rest[0].startswith("--")):
            raise InputError(f"{word}: give a value after it; see '{command} --help'.")
        else:
            yield f"--{option}={_value(option, value if equals else rest.popleft(), kinds[option])!r}"


def _value(option: str, text: str, kind: str) -> bool | float | str:
    """An option's value as its annotation says."""
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise InputError(f"--{option} {text}: give true or false.")
        return text.lower() == "true"
    if kind not in ("int", "float"):
        return text
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"--{option} {text}: give {'a whole number' if kind == 'int' else 'a number'}.")
    return number


def takes_options_of(source: Callable[..., Any]) -> Callable[[T], T]:
    """A decorator: a command that takes ``**options`` has those of ``source``, in its signature and its help.

    Args:
        source: a function whose docstring ends in its arguments.
    """

    def decorated(command: T) -> T:
        own, others = inspect.signature(command), inspect.signature(source).parameters.values()
        named = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        shared = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in others]
        command.__signature__ = own.replace(parameters=[*named, *shared])  # type: ignore[attr-defined]
        described = inspect.cleandoc(source.__doc__ or "").partition("Args:\n")[2]
        command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n{described}"
        return command

    return decorated


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, by name; of the others, which are None, somebody else decides."""
    return {name: value for name, value in options.items() if value is not None}
