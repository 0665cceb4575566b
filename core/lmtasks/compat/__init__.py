"""Private interfaces of transformers, sacrebleu and evaluate; `lmtasks.kernels.torch_private` has those of kernels.

Each is used through a function or class here, under a public name; `tests/core/test_compat.py` checks that it is still
there, and says what to do when it is gone. The modules import torch and transformers only where their users do.
"""
