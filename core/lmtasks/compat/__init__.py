"""Private interfaces of other packages, all of those that lmtasks uses (torch's kernels: `lmtasks.kernels`).

Each is used through a function or class here, under a public name; `tests/core/test_compat.py` checks that it is still
there, and says what to do when it is gone. The modules import torch and transformers only where their users do.
"""
