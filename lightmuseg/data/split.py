"""Patients into training, validation and test."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from lightmuseg.errors import InputError

SPLITS = ("train", "val", "test")
# Named by the two letters after "TCGA-"; BCSS's authors test on these (Amgad et al., Bioinformatics 2019).
TEST_INSTITUTES = ("OL", "LL", "E2", "EW", "GM", "S3")


def plan_split(
    patients: Iterable[str],
    split: str = "patients",
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int | None = None,
    folds: int | None = None,
    fold: int | None = None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """The split of each patient by one of four ways, and the options that it took, defaults filled in.

    Patients are split at random; by name where ``val`` or ``test`` is given; for cross-validation where ``folds`` is;
    or by institute where ``split`` says so. An option that the way does not use must be left out.

    Args:
        patients: identifiers such as TCGA-A2-A0D2; repeats count once.
        split: "patients" or "institutes".
        val, test: patients by name; the others are for training.
        val_fraction, test_fraction: shares of the patients, 0.1 each.
        seed: of the shuffle, 42.
        folds, fold: number of parts of equal size, and which of them is the test split, 0 to ``folds`` - 1.

    Raises:
        InputError: for options that are unknown, impossible or not used together.
    """
    if split not in ("patients", "institutes"):
        raise InputError(f"--split {split} is not known; one of patients, institutes.")
    options = {"val": sorted(val) or None, "test": sorted(test) or None, "val_fraction": val_fraction,
               "test_fraction": test_fraction, "seed": seed, "folds": folds, "fold": fold}  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    way = split
    if split == "patients" and given.keys() & {"val", "test"}:
        way = "names"
    elif split == "patients" and given.keys() & {"folds", "fold"}:
        way = "folds"
    assign, defaults = WAYS[way]
    unused = [name for name in given if name not in defaults]
    if unused:
        raise InputError(f"--{unused[0]} has no part in a split by {way} ({', '.join(defaults)}); leave it out.")
    used = defaults | given
    return assign(patients, **used), {"split": way} | used


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


def split_institutes(patients: Iterable[str], val_fraction: float = 0.1, seed: int = 42) -> dict[str, str]:
    """The split of each patient, those of :data:`TEST_INSTITUTES` for test.

    Args:
        patients: identifiers such as TCGA-A2-A0D2; repeats count once.
        val_fraction: share for validation of the patients who are not for test.
        seed: of the choice of these.

    Raises:
        InputError: where no patient is of one of these institutes, or none is not.
    """
    everyone = set(patients)
    tests = {patient for patient in everyone if patient[5:7] in TEST_INSTITUTES}
    if not tests or tests == everyone:
        which = "every patient" if tests else "no patient"
        raise InputError(f"{which} is of the test institutes {', '.join(TEST_INSTITUTES)}; use --split patients.")
    return split_patients(everyone - tests, val_fraction, 0, seed) | dict.fromkeys(tests, "test")


def split_folds(patients: Iterable[str], folds: int = 0, fold: int = 0, seed: int = 42) -> dict[str, str]:
    """The split of each patient in one round of a cross-validation: a fold is for test, the next for validation.

    Args:
        patients: identifiers; repeats count once.
        folds: number of parts, whose sizes differ by one patient at most; 3 or more.
        fold: the part for test; the one after it, or after the last the first, is for validation.
        seed: of the shuffle of the sorted identifiers.

    Raises:
        InputError: for fewer than 3 folds or more than there are patients, or a fold that is not one of them.
    """
    shuffled = sorted(set(patients))
    if not 3 <= folds <= len(shuffled):
        raise InputError(
            f"--folds {folds}: give 3 to {len(shuffled)} (patients): one to test, one to validate, a rest."
        )
    if not 0 <= fold < folds:
        raise InputError(f"--fold {fold}: the {folds} folds are 0 to {folds - 1}.")
    random.Random(seed).shuffle(shuffled)
    role = {fold: "test", (fold + 1) % folds: "val"}
    return {patient: role.get(index % folds, "train") for index, patient in enumerate(shuffled)}


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


# Each way with the options it takes and their defaults.
WAYS = {
    "patients": (split_patients, {"val_fraction": 0.1, "test_fraction": 0.1, "seed": 42}),
    "names": (split_patients, {"val": [], "test": []}),
    "institutes": (split_institutes, {"val_fraction": 0.1, "seed": 42}),
    "folds": (split_folds, {"folds": 0, "fold": 0, "seed": 42}),
}
