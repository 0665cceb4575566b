"""Returns something else than tasks."""

from lmtasks import hookimpl


@hookimpl
def register_tasks():
    return [{"name": "broken-type", "prompt": "Say $text"}]
