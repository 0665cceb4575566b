"""The functions of `import lmtasks` and of the command line."""

from lmtasks.api.adapters import merge_adapter, show_adapter
from lmtasks.api.running import ShownTask, ask, load_model, run, run_all, run_planned, show
from lmtasks.api.scoring import as_evaluate, compare, compare_adapters, score
from lmtasks.checks.data_file import DataCheck, FieldSummary, check_data
from lmtasks.checks.plugin import check_plugin
from lmtasks.checks.result import CheckResult
from lmtasks.checks.task import run_checks
from lmtasks.training.lora.conduct import PlannedTraining, TrainedAdapter, plan_train, train

__all__ = [
    "CheckResult",
    "DataCheck",
    "FieldSummary",
    "PlannedTraining",
    "ShownTask",
    "TrainedAdapter",
    "as_evaluate",
    "ask",
    "check_data",
    "check_plugin",
    "run_checks",
    "compare",
    "compare_adapters",
    "load_model",
    "merge_adapter",
    "plan_train",
    "run",
    "run_all",
    "run_planned",
    "score",
    "show",
    "show_adapter",
    "train",
]
