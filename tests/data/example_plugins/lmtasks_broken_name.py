"""Gives its task the name of another plugin's."""

from lmtasks import Task, hookimpl


@hookimpl
def register_tasks():
    return [
        Task(
            name="titles",
            version=1,
            summary="Not the titles you know.",
            fields=["text"],
            prompts={"plain": "$text"},
            datasets={"demo": lambda split: ()},
            metrics=["rouge"],
        )
    ]
