"""Words of the command line become values of the options' types."""

import fire
import pytest

from lightmuseg.cli.arguments import checked, given, takes_options_of
from lightmuseg.errors import InputError


def shared(mpp: "float | None" = None, count: "int" = 3, ome: "bool | None" = None, name: "str" = "") -> None:
    """Options of several commands.

    Args:
        mpp: of slides.
    """


@takes_options_of(shared)
def command(*slides: "str", check: "bool" = False, **options):
    """Return what was given."""
    return {"slides": slides, "check": check, **options}


COMMANDS = {"group": {"command": command}}


def called(line):
    return fire.Fire(COMMANDS, command=checked(["group", "command", *line.split()], COMMANDS), serialize=lambda _: "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2024 1e5 True", {"slides": ("2024", "1e5", "True")}),
        ("--mpp 0.5 a --count=-4", {"slides": ("a",), "mpp": 0.5, "count": -4}),
        ("--count -4 --mpp 1e-07 --name 12", {"count": -4, "mpp": 1e-7, "name": "12"}),
        ("--check a --ome", {"slides": ("a",), "check": True, "ome": True}),
        ("--no-ome --check=FALSE --name=--x", {"ome": False, "check": False, "name": "--x"}),
        ("--name= a", {"slides": ("a",), "name": ""}),
    ],
)
def test_values_have_the_types_of_their_options(line, expected):
    assert called(line) == {"slides": (), "check": False, **expected}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--count 1.5", "--count 1.5: give a whole number."),
        ("--mpp=fine", "--mpp fine: give a number."),
        ("--mpp nan", "--mpp nan: give a number."),
        ("--ome=maybe", "--ome maybe: give true or false."),
        ("a --names x", "--names: 'lightmuseg group command' has no such option"),
        ("a --slides x", "--slides: 'lightmuseg group command' has no such option"),
        ("a --name --ome", "--name: give a value after it; see 'lightmuseg group command --help'."),
        ("a --name", "--name: give a value after it"),
    ],
)
def test_what_cannot_be_is_refused(line, message):
    with pytest.raises(InputError) as error:
        called(line)
    assert str(error.value).startswith(message)


def test_words_before_a_command_and_for_help_are_left_to_fire():
    assert checked(["group", "--help"], COMMANDS) == ["group", "--help"]
    assert checked(["group", "command", "--help"], COMMANDS) == ["group", "command", "--help"]


def test_options_that_were_not_given_are_left_out():
    assert given(a=None, b=False, c=0) == {"b": False, "c": 0}
    assert "mpp: of slides" in command.__doc__
