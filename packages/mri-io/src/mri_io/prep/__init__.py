"""One runner for every step that is done volume by volume: in this process, on local workers, on a cluster."""

from mri_io.prep.cohort import prepare_cohort
from mri_io.prep.comparison import Comparison, Measured
from mri_io.prep.results import LoadsOnce, already_there, known_affine, result_path
from mri_io.prep.runner import run_tasks
from mri_io.prep.steps import Step, get_step, run_step, step_names
from mri_io.prep.summary import PrepSummary, TaskFailure

__all__ = [
    "Comparison",
    "LoadsOnce",
    "Measured",
    "PrepSummary",
    "Step",
    "TaskFailure",
    "already_there",
    "get_step",
    "known_affine",
    "prepare_cohort",
    "result_path",
    "run_step",
    "run_tasks",
    "step_names",
]
