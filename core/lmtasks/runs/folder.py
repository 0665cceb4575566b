"""The run folder: run.json, and how it is read and written."""

from __future__ import annotations

from pathlib import Path

from lmtasks.errors import RunError
from lmtasks.files import atomic_write, sha256_file
from lmtasks.paths import user_path
from lmtasks.records.reading import OtherSchemaError
from lmtasks.records.run import ModelRunRecord, OutputsRunRecord, RunRecord, read_run_record, run_record_text
from lmtasks.runs.sample_file import ESCAPED, SAMPLES, read_samples
from lmtasks.task import Sample, Score

RECORD = "run.json"
MAX_RECORD_BYTES = 2**26
"""Bytes of run.json at most; the largest part is a training's losses, some 100 bytes a step."""
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of a file without content."""


class OtherVersionError(RunError):
    """A run.json that another version of lmtasks wrote, or another program."""


class Run:
    """A run folder: its record, samples and scores."""

    def __init__(self, path: str | Path, record: ModelRunRecord | OutputsRunRecord | None = None) -> None:
        """Read the record of a run.

        Args:
            path: the run folder.
            record: what run.json is about to hold; None: read it.

        Raises:
            PathError: no folder can have this name.
            RunError: it is not a run folder, its record is damaged, or another version of lmtasks wrote it.
        """
        self.path = user_path(path, "run folder")
        self.record = read_record(self.path) if record is None else record

    @property
    def status(self) -> str:
        """One of "running", "finished", "failed" and "interrupted"."""
        return self.record.status

    @property
    def scores(self) -> list[Score]:
        """The scores, as they were computed."""
        return [score.score for score in self.record.scores]

    @property
    def output_checks(self) -> list[Score]:
        """Shares of outputs that are empty, truncated, repetitive or copied, and their length."""
        return [score.score for score in self.record.output_checks]

    @property
    def why_no_scores(self) -> str:
        """Why a finished run has no scores, for people."""
        counts = self.record.counts
        if counts and counts.skipped == counts.examples:
            return "every example was skipped"
        if counts and not counts.scored:
            return "the data has no references"
        return "they are not defined on these examples" if self.record.metrics else "no metric was requested"

    @property
    def samples(self) -> list[Sample]:
        """The samples, in the order of the data.

        Raises:
            RunError: a line is damaged or of no example of the data, or the samples of a finished run are incomplete or
                were edited.
        """
        expected = self.record.data.count
        samples = read_samples(self.path, count=expected)
        if self.status == "finished":
            if len(samples) != expected:
                raise RunError(
                    f"{self.path / SAMPLES}: damaged (it holds {len(samples)} samples of {expected}); run it again"
                )
            self.check_samples_sha256()
        return samples

    def check_samples_sha256(self) -> None:
        """Check that samples.jsonl of a finished run is the file that its scores were computed from.

        Raises:
            RunError: the file was edited, exchanged or damaged, or cannot be read.
        """
        if self.record.samples_sha256 is None:
            return
        try:
            actual = samples_sha256(self.path)
        except OSError as error:
            raise RunError(f"{self.path / SAMPLES}: cannot be read ({error})") from error
        if actual != self.record.samples_sha256:
            raise RunError(
                f"{self.path / SAMPLES}: damaged, or edited: its SHA-256 is {actual[:12]}..., but samples_sha256 in"
                f" {RECORD} is {self.record.samples_sha256[:12]}...; restore the file, or run it again"
            )


def load_run(path: str | Path) -> Run:
    """Return a run folder with a typed record, checked.

    >>> load_run("runs/20261123-162741-qa-smollm2").record.model.name  # doctest: +SKIP

    Args:
        path: the run folder.

    Raises:
        PathError: no folder can have this name.
        RunError: it is not a run folder, it is damaged, or another version of lmtasks wrote it; the samples of a
            finished run are not those that its scores were computed from.
    """
    run = Run(path)
    run.check_samples_sha256()
    return run


def samples_sha256(path: Path) -> str:
    """Return the SHA-256 of the samples of a run folder; a run of no examples has no file.

    Raises:
        OSError: the file cannot be read.
    """
    file = path / SAMPLES
    return sha256_file(file) if file.exists() else EMPTY_SHA256


def read_record(path: Path) -> ModelRunRecord | OutputsRunRecord:
    """Return the content of run.json, checked.

    Raises:
        OtherVersionError: another version of lmtasks wrote it.
        RunError: there is none, or it is damaged.
    """
    file = path / RECORD
    try:
        if file.exists() and not file.is_file():
            raise RunError(f"{file}: not a file")
        if file.stat().st_size > MAX_RECORD_BYTES:
            raise RunError(f"{file}: damaged (larger than {MAX_RECORD_BYTES >> 20} MiB)")
        text = file.read_text(encoding="utf-8")
    except NotADirectoryError:
        raise RunError(f"{path}: not a run folder but a file; name the folder that it is in") from None
    except FileNotFoundError:
        raise RunError(f"{path}: not a run folder (it has no {RECORD})") from None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error})") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{file}: damaged ({error})") from error
    try:
        return read_run_record(text)
    except OtherSchemaError as error:
        raise OtherVersionError(f"{file}: {error}; run it again, or use the lmtasks that wrote it") from error
    except ValueError as error:
        raise RunError(f"{file}: damaged ({error})") from error


def write_record(path: Path, record: RunRecord, *, sync: bool = True) -> None:
    """Write run.json, whole or not at all.

    Args:
        path: the run folder.
        record: the content.
        sync: as for `atomic_write`.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    try:
        atomic_write(path / RECORD, run_record_text(record).encode("utf-8", ESCAPED), sync=sync)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error}); what was finished before is kept") from error
