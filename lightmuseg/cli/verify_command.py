"""The command that checks results."""

from __future__ import annotations

import sys
from pathlib import Path

from lightmuseg.errors import InputError


def verify(folder: str) -> None:
    """Read all files of results and compare them with the hashes in their run.json; exit status 1 where one differs.

    Results that report.csv or cohort.csv in the folder say are done must be there too.

    Args:
        folder: of one slide's results, or the output of 'lightmuseg segment' or 'lightmuseg cohort'.
    """
    from tqdm import tqdm

    from lightmuseg.slides.finished import folders_of_results, said_done, verified

    root = Path(folder)
    unseen: list[OSError] = []
    found = sorted({*folders_of_results(root, unseen.append), *said_done(root)})
    for error in unseen:
        print(f"{error.filename}: cannot be looked into ({error.strerror})")
    if not found:
        raise InputError(f"{root}: holds no results; name the output of 'lightmuseg segment' or 'lightmuseg cohort'.")
    broken = unlisted = 0
    with tqdm(found, desc="verifying", unit="slide", file=sys.stderr, leave=False) as bar:
        for one in bar:
            fault, listed = verified(one)
            unlisted += fault is None and not listed
            broken += fault is not None
            if fault is not None:
                bar.write(f"{one}: {fault}", file=sys.stdout)
    if unlisted:
        print(f"{root}: {unlisted} results are of an older version, which kept no hashes; none of their files is empty")
    if broken:
        raise InputError(
            f"{root}: {broken} of {len(found)} results are broken; the command that made them does them again, segment "
            "with --resume."
        )
    if unseen:
        raise InputError(
            f"{root}: {len(unseen)} folders cannot be looked into, such as {unseen[0].filename}; allow it."
        )
    print(f"{root}: {len(found)} results are whole")
