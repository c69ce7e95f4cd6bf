"""Very many slides: a list of work on disk, and processes or machines that share it."""

from .coordinator import CohortRun, segment_cohort

__all__ = ["CohortRun", "segment_cohort"]
