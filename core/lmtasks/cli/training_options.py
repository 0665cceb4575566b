"""Flags of `lmtasks train`; types, choices and defaults are those of TrainOptions."""

from __future__ import annotations

from lmtasks.cli.options import (
    columns_option,
    group,
    language_option,
    limit_option,
    metrics_option,
    model_options,
    output_dir_option,
    prompt_options,
    setting,
)
from lmtasks.options import TrainOptions

data_options = group(
    setting(TrainOptions, "data", "Training data, as for `run`.", metavar="DATA", default="the task's demo"),
    setting(TrainOptions, "split", "Split to train on.", metavar="NAME", default="train, dev, validation or test"),
    limit_option(TrainOptions, "Train on the first N examples."),
    columns_option(TrainOptions),
    language_option(TrainOptions),
    setting(
        TrainOptions,
        "eval_data",
        "Evaluation data, scored before and after.",
        metavar="DATA",
        default="another split of the data, or 10% held out of it",
    ),
    setting(
        TrainOptions,
        "eval_split",
        "Split to evaluate on.",
        metavar="NAME",
        default="test, devtest, validation, dev or train",
    ),
    setting(TrainOptions, "eval_limit", "Evaluate on the first N examples.", metavar="N"),
    metrics_option(TrainOptions, "the task's"),
    setting(TrainOptions, "max_new_tokens", "Length limit of an output in the evaluation.", metavar="N"),
    setting(
        TrainOptions,
        "validation",
        "Number of examples held out to choose the best checkpoint; 0: keep the last.",
        metavar="N",
        default="5%, at most 100",
    ),
)

lora_options = group(
    setting(TrainOptions, "rank", "LoRA rank.", metavar="R"),
    setting(TrainOptions, "alpha", "LoRA alpha; the adapter is scaled by A / R.", metavar="A", default="2 R"),
    setting(TrainOptions, "dropout", "LoRA dropout; needs more memory.", metavar="P"),
    setting(
        TrainOptions,
        "target_modules",
        "Layers to adapt.",
        metavar="NAME,...",
        default="all-linear, which is all but the head",
    ),
    setting(TrainOptions, "rslora", "Use rank-stabilized LoRA: scale by A / sqrt(R)."),
    setting(TrainOptions, "dora", "Use DoRA; slower."),
)

optimizer_options = group(
    setting(TrainOptions, "learning_rate", "Peak learning rate.", metavar="RATE"),
    setting(TrainOptions, "schedule", "Learning rate schedule."),
    setting(TrainOptions, "warmup", "Warm-up: share of the steps, or number of steps.", metavar="W"),
    setting(TrainOptions, "optimizer", "Optimizer; sgd has a momentum of 0.9."),
    setting(TrainOptions, "weight_decay", "Weight decay.", metavar="W"),
    setting(TrainOptions, "max_grad_norm", "Gradient clipping norm; 0: no clipping.", metavar="N"),
    setting(TrainOptions, "epochs", "Number of epochs.", metavar="N", default="1"),
    setting(TrainOptions, "max_steps", "Number of steps, in place of --epochs.", metavar="N"),
    setting(TrainOptions, "max_minutes", "Time limit in minutes.", metavar="M"),
    setting(
        TrainOptions, "early_stopping", "Stop after N validations without improvement.", metavar="N", default="never"
    ),
)

batch_options = group(
    setting(TrainOptions, "batch_size", "Global batch size, examples.", metavar="N"),
    setting(TrainOptions, "batch_tokens", "Global batch size in tokens, in place of --batch-size.", metavar="N"),
    setting(
        TrainOptions,
        "gradient_accumulation",
        "Micro-batches per step: less memory, same result.",
        metavar="N",
        default="as many as long steps need",
    ),
    setting(TrainOptions, "gradient_checkpointing", "Recompute activations: less memory, slower."),
    setting(TrainOptions, "max_length", "Maximum tokens of an example.", metavar="N"),
)

training_options = group(
    data_options,
    prompt_options(
        TrainOptions,
        "What to do with a longer example; targets are never truncated.",
        date="today, or the date of the training that is resumed",
    ),
    lora_options,
    optimizer_options,
    batch_options,
    setting(TrainOptions, "seed", "Random seed.", metavar="N"),
    model_options(TrainOptions),
    setting(
        TrainOptions,
        "report_to",
        "Experiment trackers: tensorboard, wandb, mlflow or trackio, which you install.",
        metavar="NAME,...",
        default="none",
    ),
    output_dir_option(TrainOptions, "Folder for the run folders of the evaluation."),
)
