"""Very many slides: workers on one machine or on many, which share a folder of results."""

from .cohort_progress import CohortBar
from .coordinator import CohortRun, segment_cohort

__all__ = ["CohortBar", "CohortRun", "segment_cohort"]
