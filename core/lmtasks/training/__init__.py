"""Fine-tuning: a task and data become a LoRA adapter (`lmtasks.training.common.trainer`, the part that needs torch)."""

from lmtasks.training.lora.plan import TrainingPlan, plan_training

__all__ = ["TrainingPlan", "plan_training"]
