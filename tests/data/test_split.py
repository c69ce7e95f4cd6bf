import csv
import random
from collections import Counter

import pytest

from lightmuseg.data.split import plan_split, split_patients
from lightmuseg.errors import InputError


def patients(number):
    return [f"TCGA-{index % 7:02d}-{index:04d}" for index in range(number)]


def sizes(split):
    count = Counter(split.values())
    return count["train"], count["val"], count["test"]


def test_every_patient_is_in_exactly_one_split_and_some_are_left_for_training():
    for seed in range(300):
        rng = random.Random(seed)
        regions = rng.choices(patients(rng.randint(1, 60)), k=rng.randint(1, 120))
        val = rng.uniform(0, 0.99)
        split = split_patients(regions, val, rng.uniform(0, 0.999 - val), seed)
        assert set(split) == set(regions)
        assert set(split.values()) <= {"train", "val", "test"}
        assert "train" in split.values()


@pytest.mark.parametrize(
    ("number", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (10, (8, 1, 1)), (151, (121, 15, 15))]
)
def test_sizes_are_rounded_shares_and_one_at_least(number, expected):
    assert sizes(split_patients(patients(number))) == expected


def test_sizes_follow_the_fractions():
    assert sizes(split_patients(patients(100), val_fraction=0.25, test_fraction=0.4)) == (35, 25, 40)
    assert sizes(split_patients(patients(100), val_fraction=0, test_fraction=0)) == (100, 0, 0)
    assert sizes(split_patients(patients(100), val_fraction=0, test_fraction=0.001)) == (99, 0, 1)


def test_split_is_the_same_in_any_order_and_with_repeats():
    names = patients(40)
    expected = split_patients(names)
    for seed in range(5):
        shuffled = names + names[:11]
        random.Random(seed).shuffle(shuffled)
        assert split_patients(shuffled) == expected


def test_split_does_not_touch_the_random_state():
    random.seed(1)
    expected = random.random()
    random.seed(1)
    split_patients(patients(40))
    assert random.random() == expected


def test_seeds_give_different_splits():
    assert len({tuple(sorted(split_patients(patients(40), seed=seed).items())) for seed in range(10)}) == 10


def test_fractions_move_no_patient_out_of_order():
    smaller = split_patients(patients(50), test_fraction=0.1)
    larger = split_patients(patients(50), test_fraction=0.2)
    tests = {name for name, split in smaller.items() if split == "test"}
    assert tests < {name for name, split in larger.items() if split == "test"}


def test_chosen_patients_go_where_they_are_named():
    names = patients(9)
    split, _ = plan_split(names, val=names[2:4], test=[names[7]])
    assert {name for name in names if split[name] == "val"} == set(names[2:4])
    assert {name for name in names if split[name] == "test"} == {names[7]}
    assert sizes(split) == (6, 2, 1)


def test_no_patients_are_refused():
    with pytest.raises(InputError, match="no patients"):
        split_patients([])


@pytest.mark.parametrize(
    ("val", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (1, 0), (0, 1.5), (float("nan"), 0.1), (0.1, float("nan"))]
)
def test_fractions_that_leave_nothing_are_refused_with_their_values(val, test):
    with pytest.raises(InputError, match=f"val_fraction={val} and test_fraction={test}"):
        split_patients(patients(10), val, test)


@pytest.mark.parametrize("chosen", ["val", "test"])
def test_unknown_chosen_patient_is_refused(chosen):
    with pytest.raises(InputError, match="TCGA-XX-9999"):
        plan_split(patients(5), **{chosen: ["TCGA-XX-9999"]})


def test_patient_chosen_twice_is_refused():
    names = patients(5)
    with pytest.raises(InputError, match=names[1]):
        plan_split(names, val=names[:2], test=names[1:3])


def test_choosing_every_patient_is_refused():
    names = patients(4)
    with pytest.raises(InputError, match="training"):
        plan_split(names, val=names[:2], test=names[2:])


def test_plan_without_options_is_the_seeded_split():
    names = patients(40)
    assert plan_split(names) == (
        split_patients(names, 0.1, 0.1, 42),
        {"split": "patients", "val_fraction": 0.1, "test_fraction": 0.1, "seed": 42},
    )


def test_plan_passes_on_what_is_given():
    names = patients(40)
    split, options = plan_split(names, val_fraction=0.3, seed=0)
    assert split == split_patients(names, 0.3, 0.1, 0)
    assert options == {"split": "patients", "val_fraction": 0.3, "test_fraction": 0.1, "seed": 0}
    split, options = plan_split(names, val=[names[3], names[1]])
    assert {name for name in names if split[name] == "val"} == {names[1], names[3]}
    assert sizes(split) == (38, 2, 0)
    assert options == {"split": "names", "val": [names[1], names[3]], "test": []}


INSTITUTES = ("A1", "OL", "BH", "LL", "E2", "D8", "EW", "GM", "S3", "3S", "LO")


def test_institutes_of_the_authors_are_for_test_and_the_rest_is_split_at_random():
    names = [f"TCGA-{institute}-{institute[::-1]}{index:02d}" for institute in INSTITUTES for index in range(8)]
    split, options = plan_split(names, split="institutes", val_fraction=0.2, seed=1)
    tests = {name for name in names if name.split("-")[1] in {"OL", "LL", "E2", "EW", "GM", "S3"}}
    assert {name for name in names if split[name] == "test"} == tests
    assert sizes(split) == (32, 8, 48)
    assert options == {"split": "institutes", "val_fraction": 0.2, "seed": 1}
    vals = {
        frozenset(name for name, part in plan_split(names, split="institutes", seed=seed)[0].items() if part == "val")
        for seed in range(5)
    }
    assert len(vals) == 5


def test_institutes_of_the_real_dataset(data):
    with open(data / "bcss" / "meta" / "roiBounds.csv", newline="", encoding="utf-8") as file:
        slides = [row[0] for row in list(csv.reader(file))[1:]]
    names = {slide[:12] for slide in slides}
    assert len(names) == 151
    split, _ = plan_split(names, split="institutes")
    tests = Counter(name[5:7] for name in names if split[name] == "test")
    assert set(tests) == {"OL", "LL", "E2", "EW", "GM", "S3"}
    assert sum(tests.values()) == sum(Counter(name[5:7] for name in names)[place] for place in tests)


@pytest.mark.parametrize("names", [["TCGA-A1-0001", "TCGA-BH-0002"], ["TCGA-OL-0001", "TCGA-GM-0002"]])
def test_institutes_that_are_not_there_or_alone_are_refused(names):
    with pytest.raises(InputError, match="test institutes OL, LL"):
        plan_split(names, split="institutes")


@pytest.mark.parametrize(("number", "folds"), [(3, 3), (10, 3), (151, 5), (20, 7)])
def test_each_patient_is_tested_and_validated_in_one_fold(number, folds):
    names = patients(number)
    rounds = [plan_split(names, folds=folds, fold=fold)[0] for fold in range(folds)]
    for part in ("test", "val"):
        found = [name for split in rounds for name in names if split[name] == part]
        assert sorted(found) == sorted(names)
    for now, following in zip(rounds, rounds[1:] + rounds[:1]):
        assert {n for n in names if now[n] == "val"} == {n for n in names if following[n] == "test"}
        assert "train" in now.values()
    tests = [sizes(split)[2] for split in rounds]
    assert max(tests) - min(tests) <= 1


def test_folds_depend_on_the_seed_and_not_on_the_order():
    names = patients(30)
    assert plan_split(names, folds=5) == plan_split(names[::-1] + names[:3], folds=5, fold=0, seed=42)
    assert plan_split(names, folds=5)[1] == {"split": "folds", "folds": 5, "fold": 0, "seed": 42}
    assert len({tuple(sorted(plan_split(names, folds=5, seed=seed)[0].items())) for seed in range(8)}) == 8


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "slides"}, "--split slides.*patients, institutes"),
        ({"folds": 2}, "--folds 2: give 3 to 12"),
        ({"folds": 13}, "--folds 13: give 3 to 12"),
        ({"fold": 1}, "--folds 0"),
        ({"folds": 5, "fold": 5}, "--fold 5: .* 0 to 4"),
        ({"folds": 5, "fold": -1}, "--fold -1"),
        ({"folds": 5, "val_fraction": 0.2}, "--val_fraction .*by folds"),
        ({"folds": 5, "val": ["TCGA-00-0000"]}, "--folds .*by names"),
        ({"test": ["TCGA-00-0000"], "seed": 3}, "--seed .*by names"),
        ({"split": "institutes", "test_fraction": 0.2}, "--test_fraction .*by institutes"),
        ({"split": "institutes", "test": ["TCGA-00-0000"]}, "--test .*by institutes"),
        ({"split": "institutes", "folds": 5}, "--folds .*by institutes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        plan_split(patients(12), **options)
