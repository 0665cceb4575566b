"""Settings of glibc, torch and Linux that keep a model's memory low and its operations fast."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

import torch

MADV_PAGEOUT = 21  # of Linux' mman.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
TRIM_BYTES = 512 * 2**20
"""Free bytes at the end of the heap from which on glibc gives them back to the system."""
MMAP_BYTES = 32 * 2**20
"""Size from which on a piece of memory is mapped by itself: the largest that glibc allows."""

KERNEL_CACHES = {"LRU_CACHE_CAPACITY": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}
"""Environment variables for how many matrix products, each of one shape, torch and oneDNN cache."""


def limit_kernel_caches() -> None:
    """Limit how many shapes of matrix products torch caches; call it before the first product.

    By default two caches hold 1,024 shapes each. Batches of texts have ever new ones: a step of training left
    27 MiB behind that way, amid the memory of its activations, which then could not be used again as a whole.
    Values that the user has set stay.
    """
    for name, capacity in KERNEL_CACHES.items():
        os.environ.setdefault(name, capacity)


def tune_malloc() -> None:
    """Let glibc keep memory that operations free for the next ones.

    By default it gives every large piece back, and the system clears it page by page when it is taken again: with
    hundreds of megabytes per second, that costs more than the matrix products themselves.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another library than glibc
        return
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def advise_pageout(tensor: torch.Tensor) -> None:
    """Advise the system that a tensor will not be read for a while.

    Weights that are mapped from a file leave memory, and come back when they are read. A hint: where it is not
    understood, nothing happens.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (tensor.data_ptr() + tensor.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if size > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_PAGEOUT)
