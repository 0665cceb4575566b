"""Memory that is freed and taken again between the operations of a model, without going back to the system."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

import torch

MADV_PAGEOUT = 21  # of Linux' mman.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 512 * 2**20
"""Free bytes at the end of the heap from which on they are given back."""
MAPPED = 32 * 2**20
"""Bytes from which on a piece of memory is mapped by itself: the most that glibc takes."""

SHAPES_KEPT = {"LRU_CACHE_CAPACITY": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}
"""How many products of matrices torch and oneDNN under it remember, each of one shape: environment variables."""


def limit_kernel_caches() -> None:
    """Let torch forget how it computed products of shapes that will hardly come again; to be called before the first.

    By default two caches remember 1,024 shapes each. Batches of texts have ever new ones: a step of training left
    27 MiB behind that way, amid the memory of its activations, which then could not be used again as a whole.
    Values that the user has set stay.
    """
    for name, most in SHAPES_KEPT.items():
        os.environ.setdefault(name, most)


def tune_malloc() -> None:
    """Let glibc keep what operations free for the next ones.

    By default it gives every large piece back, and the system clears it page by page when it is taken again: with
    hundreds of megabytes per second, that costs more than the products of matrices themselves.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another library than glibc
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_THRESHOLD, MAPPED)


def advise_pageout(tensor: torch.Tensor) -> None:
    """Tell the system that a tensor is not read for a while.

    Weights that are mapped from a file leave memory, and come back when somebody reads them. A hint: where it is not
    understood, nothing happens.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (tensor.data_ptr() + tensor.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if size > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_PAGEOUT)
