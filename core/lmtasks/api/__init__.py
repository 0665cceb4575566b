"""What lmtasks does, as functions: the command line calls these, and so does `import lmtasks`."""

from lmtasks.api.adapters import merge_adapter, show_adapter
from lmtasks.api.running import ShownTask, ask, load_model, plan_run, run, run_all, run_planned, show
from lmtasks.api.scoring import as_evaluate, compare, compare_adapters, score
from lmtasks.checks.data_file import DataCheck, FieldSummary, check_data
from lmtasks.checks.plugin import Check, check_plugin, check_promises
from lmtasks.training.lora.conduct import PlannedTraining, TrainedAdapter, plan_train, train

__all__ = [
    "Check",
    "DataCheck",
    "FieldSummary",
    "PlannedTraining",
    "ShownTask",
    "TrainedAdapter",
    "as_evaluate",
    "ask",
    "check_data",
    "check_plugin",
    "check_promises",
    "compare",
    "compare_adapters",
    "load_model",
    "merge_adapter",
    "plan_run",
    "plan_train",
    "run",
    "run_all",
    "run_planned",
    "score",
    "show",
    "show_adapter",
    "train",
]
