"""Fine-tuning: a task and data become a LoRA adapter (`lmtasks.training.trainer`, the part that needs torch)."""

from lmtasks.training.options import TrainOptions
from lmtasks.training.plan import TrainingPlan, plan_training

__all__ = ["TrainOptions", "TrainingPlan", "plan_training"]
