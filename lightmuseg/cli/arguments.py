"""Words of the command line, before and after Fire reads them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from lightmuseg.errors import InputError

T = TypeVar("T", bound=Callable[..., Any])


def checked(words: list[str], commands: dict[str, Any]) -> list[str]:
    """The words of a command line as Fire is to read them: values stay text, and unknown options are refused.

    Fire would read a folder named 2024 as a number, and would run a command before it complains of an option that
    the command does not have.
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
    return words[:depth] + [_argument(word, inspect.signature(command).parameters, name) for word in words[depth:]]


def _argument(word: str, options: Any, command: str) -> str:
    if word in ("--", "--help", "-h"):
        return word
    if not word.startswith("--"):
        return repr(word)
    option, equals, value = word[2:].partition("=")
    option = option.replace("-", "_")
    positive = option.removeprefix("no_")
    if positive != option and not equals and positive in options and _is_switch(options[positive]):
        return f"--{positive}=False"
    if option not in options or options[option].kind is inspect.Parameter.VAR_POSITIONAL:
        raise InputError(f"{word}: '{command}' has no such option; see '{command} --help'.")
    if not equals and _is_switch(options[option]):
        # or Fire would take the next word for the flag's value
        return f"--{option}=True"
    return f"--{option}={value!r}" if equals else f"--{option}"


def _is_switch(option: inspect.Parameter) -> bool:
    return str(option.annotation).startswith("bool")


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


def number(option: str, value: Any, kind: type) -> Any:
    """An option's value as a number, or an InputError; None stays None."""
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"--{option} {value}: give {wanted}.") from error


def truth(option: str, value: Any) -> bool:
    """An option's value as a truth value, or an InputError."""
    text = str(value).lower()
    if text not in ("true", "false"):
        raise InputError(f"--{option} {value}: give true or false.")
    return text == "true"


def switches(**given: Any) -> dict[str, bool]:
    """The switches that were turned on or off, by name; of the others, which are None, a config decides."""
    return {option: truth(option, value) for option, value in given.items() if value is not None}


def names(value: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in value.split(",") if name.strip()]
