"""Kernels: attention, linear layers, int8 and memory, shared by the engine and training."""
