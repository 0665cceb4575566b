"""Provenance of a run: versions, machine, commit, peak memory."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lmtasks.records.parts import EnvironmentRecord, GitRecord

PACKAGES = (
    "lmtasks",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "sacrebleu",
    "rouge-score",
    "nltk",
    "py3langid",
    "regex",
    "datasets",
    "numpy",
)
"""Packages that can change an output or a score."""

_FILTER = re.compile(rb"filter\..*\.(?:clean|process|required)", re.DOTALL)
"""Names of settings that make git start a program to compare a file with its commit."""


def environment() -> EnvironmentRecord:
    """Return versions, platform, and the state of the git checkout that the run was started in."""
    return EnvironmentRecord(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=os.cpu_count(),
        packages=package_versions(),
        git=_git(),
    )


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that matter."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def peak_memory_bytes() -> int | None:
    """Return the largest resident size that this process ever had; None where the system does not say."""
    if sys.platform == "win32":
        return None
    if sys.platform.startswith("linux"):
        # ru_maxrss is handed down from the process that started this one, and may be its peak.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(match[1]) * 1024 if match else None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # others count in KiB


def _git() -> GitRecord | None:
    """Return the commit of the folder that the process is in, and whether its files differ from it.

    The folder may be other people's: no program that its repository's hooks and settings name is started.
    """
    git = shutil.which("git")
    if git is None:
        return None
    settings = {"core.fsmonitor": "false", "core.hooksPath": os.devnull}

    def ask(*words: str) -> bytes | None:
        # By the environment: -c splits a name that has "=" in it.
        variables = {"GIT_NO_LAZY_FETCH": "1", "GIT_CONFIG_COUNT": str(len(settings))}
        for number, (name, value) in enumerate(settings.items()):
            variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        done = subprocess.run([git, *words], capture_output=True, check=False, env={**os.environ, **variables})  # noqa: S603
        return done.stdout if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    # Names are bytes: git's own patterns do not match those that are not UTF-8.
    names = ask("config", "--list", "--name-only", "-z")
    changed = None
    if names is not None:
        settings |= {os.fsdecode(name): "" for name in names.split(b"\0") if _FILTER.fullmatch(name)}
        changed = ask("--no-optional-locks", "status", "--porcelain", "--ignore-submodules=dirty")
    return GitRecord(commit=os.fsdecode(commit).strip(), dirty=None if changed is None else bool(changed))
