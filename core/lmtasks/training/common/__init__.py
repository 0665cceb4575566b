"""Training, whatever is trained: packing, trainer, checkpoints, resuming, processes."""
