"""Reports of runs and adapters: one view (`view`, `facts`) under Markdown, model cards and the terminal."""

from lmtasks.reports.card import write_card
from lmtasks.reports.learning_curve import CURVE
from lmtasks.reports.markdown import markdown_report, write_report

__all__ = ["CURVE", "markdown_report", "write_card", "write_report"]
