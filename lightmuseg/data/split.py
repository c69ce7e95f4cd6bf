"""Patients into training, validation and test."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from lightmuseg.errors import InputError

SPLITS = ("train", "val", "test")


def split_patients(
    patients: Iterable[str],
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 42,
    val: Sequence[str] = (),
    test: Sequence[str] = (),
) -> dict[str, str]:
    """The split of each patient, so that no patient is in two.

    Args:
        patients: identifiers; repeats count once.
        val_fraction, test_fraction: shares of the patients, rounded; at least one patient each while one is left
            for training, test before val.
        seed: of the shuffle of the sorted identifiers.
        val, test: patients chosen by name; where either is given, the others are for training and the fractions
            and the seed are not used.

    Raises:
        InputError: for no patients, fractions that leave none for training, or a chosen patient that is unknown
            or in both lists.
    """
    everyone = sorted(set(patients))
    if not everyone:
        raise InputError("no patients to split; the source holds no regions.")
    if val or test:
        return _chosen(everyone, val, test)
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise InputError(f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing for training.")
    shuffled = list(everyone)
    random.Random(seed).shuffle(shuffled)
    spare = len(shuffled) - 1
    tests = min(spare, max(round(test_fraction * len(shuffled)), 1 if test_fraction else 0))
    vals = min(spare - tests, max(round(val_fraction * len(shuffled)), 1 if val_fraction else 0))
    names = ["test"] * tests + ["val"] * vals + ["train"] * (len(shuffled) - tests - vals)
    return dict(zip(shuffled, names))


def _chosen(everyone: list[str], val: Sequence[str], test: Sequence[str]) -> dict[str, str]:
    for patient in (*val, *test):
        if patient not in everyone:
            raise InputError(f"patient {patient} is not in the data; there are {', '.join(everyone[:5])}, ...")
    both = sorted(set(val) & set(test))
    if both:
        raise InputError(f"patient {both[0]} is named for both val and test; name it for one.")
    split = {patient: "val" if patient in val else "test" if patient in test else "train" for patient in everyone}
    if "train" not in split.values():
        raise InputError("val and test name every patient; leave at least one for training.")
    return split
