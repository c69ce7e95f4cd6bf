"""Names of classes as BCSS codes."""

import pytest

from lightmuseg.data.bcss import CODE_NAMES
from lightmuseg.data.class_names import ALIASES, codes_of, parse_classes
from lightmuseg.errors import InputError


@pytest.mark.parametrize(
    ("name", "code"),
    [("Tumor", 1), ("tumor", 1), ("TUMOUR", 1), ("Immune cells", 3), ("Lymphocytic infiltrate", 3), ("Necrosis", 4),
     ("Ignore*", 7), ("Other", 21), ("background", 21), ("Region*", None), ("region", None), ("blood vessel", 18),
     ("normal_acinus_or_duct", 13), ("metaplasia NOS", 8), ("Tumor: Positive", 1), ("Stroma:Fold: x", 2)],
)  # fmt: skip
def test_names_of_qupath_and_of_bcss_are_known(name, code):
    assert codes_of([name], {}, "a") == {name: code}


def test_every_name_of_bcss_and_every_synonym_is_known():
    assert codes_of(CODE_NAMES, {}, "a") == {name: code for code, name in enumerate(CODE_NAMES)}
    assert codes_of(ALIASES, {}, "a") == {alias: CODE_NAMES.index(name) for alias, name in ALIASES.items()}


def test_names_of_ones_own_go_before():
    own = {"immune": [11], "Tumor": [20], "Tumor bed": ()}
    assert codes_of(["Immune", "tumor", "tumor bed"], own, "a") == {"Immune": 11, "tumor": 20, "tumor bed": None}


def test_objects_without_a_class_may_have_one_by_name():
    assert codes_of([""], parse_classes("unclassified=other"), "a") == {"": 21}


def test_unknown_names_are_listed_in_one_line():
    with pytest.raises(InputError, match=r"^a: the class 'Banana', 'Kiwi', 'Unclassified' is not known; .*, or cut\.$"):
        codes_of(["Kiwi", "Tumor", "", "Banana"], {}, "a", remedy=", or cut")


@pytest.mark.parametrize("text", ["a", "=tumor", "a=", "a=tumor,a=stroma", "a_b=tumor,A b*=stroma", "a=b"])
def test_what_is_no_list_of_names_is_refused(text):
    with pytest.raises(InputError, match="--classes"):
        parse_classes(text)
