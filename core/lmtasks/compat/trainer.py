"""transformers' Trainer with public names for the private methods that lmtasks overrides or calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_callback import ExportableState


class OpenTrainer(Trainer):
    """A Trainer whose batches come in the order of the data, and whose checkpoints a subclass writes."""

    def save_checkpoint(self, model: torch.nn.Module) -> None:
        """Write a checkpoint of the present step."""
        raise NotImplementedError

    def save_optimizer_and_schedule(self, folder: Path) -> None:
        """Write the states of optimizer and learning-rate schedule into a checkpoint's folder."""
        self._save_optimizer_and_scheduler(str(folder))

    def save_rng_state(self, folder: Path) -> None:
        """Write the random state of this process into a checkpoint's folder."""
        self._save_rng_state(str(folder))

    def to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch on the model's device."""
        moved: dict[str, Any] = self._prepare_inputs(batch)
        return moved

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.save_checkpoint(model)


def callback_states(parts: list[TrainerCallback | TrainerControl]) -> dict[str, Any]:
    """Return the states of the callbacks that a checkpoint keeps, by the names of their classes."""
    return {type(part).__name__: part.state() for part in parts if isinstance(part, ExportableState)}


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Use one of several GPUs that this process sees: torch's DataParallel would tear packed batches apart."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
