"""One runner for every step that is done volume by volume: in this process, on local workers, on a cluster."""

from mri_io.prep.cohort import prepare_cohort
from mri_io.prep.runner import PrepSummary, TaskFailure, run_tasks

__all__ = ["PrepSummary", "TaskFailure", "prepare_cohort", "run_tasks"]
