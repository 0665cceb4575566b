"""Fine-tuning: a task and data become a LoRA adapter (`lmtasks.training.common.trainer`, the part that needs torch)."""

from lmtasks.training.lora.options import TrainOptions
from lmtasks.training.lora.plan import TrainingPlan, plan_training

__all__ = ["TrainOptions", "TrainingPlan", "plan_training"]
