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
    **numbers: float | None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """The split of each patient by one of four ways, and the options that it took, defaults filled in.

    Patients are split at random; by name where ``val`` or ``test`` is given; for cross-validation where ``folds`` is;
    or by institute where ``split`` says so. An option that the way does not use must be left out.

    Args:
        patients: identifiers such as TCGA-A2-A0D2; repeats count once.
        split: "patients" or "institutes".
        val, test: patients by name; the others are for training.
        numbers: options of the ways in :data:`WAYS`, or None: ``val_fraction`` and ``test_fraction``, shares of the
            patients; ``seed`` of the shuffle; ``folds``, the number of parts of equal size, and ``fold``, which of
            them is for test, from 0; the next one is for validation.

    Raises:
        InputError: for options that are unknown, impossible or not used together.
    """
    if split not in ("patients", "institutes"):
        raise InputError(f"--split {split} is not known; one of patients, institutes.")
    options = {"val": sorted(val) or None, "test": sorted(test) or None, **numbers}
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
    return assign(sorted(set(patients)), **used), {"split": way} | used


def split_patients(
    patients: Iterable[str], val_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 42
) -> dict[str, str]:
    """The split of each patient at random, so that no patient is in two.

    Args:
        patients: identifiers; repeats count once.
        val_fraction, test_fraction: shares of the patients, rounded; at least one patient each while one is left
            for training, test before val.
        seed: of the shuffle of the sorted identifiers.

    Raises:
        InputError: for no patients, or fractions that leave none for training.
    """
    shuffled = sorted(set(patients))
    if not shuffled:
        raise InputError("no patients to split; the source holds no regions.")
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise InputError(f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing for training.")
    random.Random(seed).shuffle(shuffled)
    spare = len(shuffled) - 1
    tests = min(spare, max(round(test_fraction * len(shuffled)), 1 if test_fraction else 0))
    vals = min(spare - tests, max(round(val_fraction * len(shuffled)), 1 if val_fraction else 0))
    names = ["test"] * tests + ["val"] * vals + ["train"] * (len(shuffled) - tests - vals)
    return dict(zip(shuffled, names))


def _split_names(patients: list[str], val: Sequence[str], test: Sequence[str]) -> dict[str, str]:
    for patient in (*val, *test):
        if patient not in patients:
            raise InputError(f"patient {patient} is not in the data; there are {', '.join(patients[:5])}, ...")
    both = sorted(set(val) & set(test))
    if both:
        raise InputError(f"patient {both[0]} is named for both val and test; name it for one.")
    split = {patient: "val" if patient in val else "test" if patient in test else "train" for patient in patients}
    if "train" not in split.values():
        raise InputError("val and test name every patient; leave at least one for training.")
    return split


def _split_institutes(patients: list[str], val_fraction: float, seed: int) -> dict[str, str]:
    """Patients of :data:`TEST_INSTITUTES` are for test, the others at random."""
    tests = {patient for patient in patients if patient[5:7] in TEST_INSTITUTES}
    if len(tests) in (0, len(patients)):
        which = "every patient" if tests else "no patient"
        raise InputError(f"{which} is of the test institutes {', '.join(TEST_INSTITUTES)}; use --split patients.")
    return split_patients(set(patients) - tests, val_fraction, 0, seed) | dict.fromkeys(tests, "test")


def _split_folds(patients: list[str], folds: int, fold: int, seed: int) -> dict[str, str]:
    """One round of a cross-validation; the folds' sizes differ by one patient at most."""
    if not 3 <= folds <= len(patients):
        raise InputError(
            f"--folds {folds}: give 3 to {len(patients)} (patients): one to test, one to validate, a rest."
        )
    if not 0 <= fold < folds:
        raise InputError(f"--fold {fold}: the {folds} folds are 0 to {folds - 1}.")
    random.Random(seed).shuffle(patients)
    role = {fold: "test", (fold + 1) % folds: "val"}
    return {patient: role.get(index % folds, "train") for index, patient in enumerate(patients)}


# Each way with the options it takes and their defaults.
WAYS = {
    "patients": (split_patients, {"val_fraction": 0.1, "test_fraction": 0.1, "seed": 42}),
    "names": (_split_names, {"val": [], "test": []}),
    "institutes": (_split_institutes, {"val_fraction": 0.1, "seed": 42}),
    "folds": (_split_folds, {"folds": 0, "fold": 0, "seed": 42}),
}
