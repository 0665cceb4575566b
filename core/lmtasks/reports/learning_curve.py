"""The learning curve of a training as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from lmtasks.errors import RunError
from lmtasks.files import atomic_write
from lmtasks.records.adapter import TrainingRecord

CURVE = "learning-curve.svg"


def write_learning_curve(file: Path, training: TrainingRecord) -> None:
    """Draw the losses of a training, by step, as SVG.

    Args:
        file: the picture.
        training: its record.

    Raises:
        RunError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    trained = [(entry.step, entry.loss) for entry in training.history if entry.loss is not None]
    validated = [(entry.step, entry.eval_loss) for entry in training.history if entry.eval_loss is not None]
    # Text as text, and the same file for the same losses.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lmtasks", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        if trained:
            axes.plot(
                *zip(*trained, strict=True),
                color="#9aa5b1",
                linewidth=1.2,
                label="training, on the examples of the step",
            )
        if validated:
            axes.plot(*zip(*validated, strict=True), color="#1f5fbf", marker="o", markersize=4, label="validation")
            best = [loss for step, loss in validated if step == training.best_step]
            if best:
                axes.annotate(
                    f"kept: {best[0]:.3f}",
                    (training.best_step, best[0]),
                    xytext=(0, 10),
                    textcoords="offset points",
                    ha="right" if training.best_step > training.steps / 2 else "left",
                    color="#1f5fbf",
                )
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats per token of the answer")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
        if trained or validated:
            axes.legend(frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
        try:
            atomic_write(file, picture.getvalue())
        except OSError as error:
            raise RunError(f"{file}: cannot be written ({error})") from error
