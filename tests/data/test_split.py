import random
from collections import Counter

import pytest

from lightmuseg.data.split import split_patients
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
    split = split_patients(names, val=names[2:4], test=[names[7]])
    assert {name for name in names if split[name] == "val"} == set(names[2:4])
    assert {name for name in names if split[name] == "test"} == {names[7]}
    assert sizes(split) == (6, 2, 1)


def test_chosen_patients_make_fractions_and_seed_unused():
    names = patients(9)
    assert split_patients(names, 5, 5, seed=1, val=[names[0]]) == split_patients(names, seed=2, val=[names[0]])


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
        split_patients(patients(5), **{chosen: ["TCGA-XX-9999"]})


def test_patient_chosen_twice_is_refused():
    names = patients(5)
    with pytest.raises(InputError, match=names[1]):
        split_patients(names, val=names[:2], test=names[1:3])


def test_choosing_every_patient_is_refused():
    names = patients(4)
    with pytest.raises(InputError, match="training"):
        split_patients(names, val=names[:2], test=names[2:])
