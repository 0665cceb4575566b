"""Training, whatever is trained: packing, trainer, checkpoints, processes."""
