"""Reports, made from run folders."""

from lmtasks.reports.markdown import markdown_report, write_report

__all__ = ["markdown_report", "write_report"]
