"""Shows the jobs of ``ada2i.usecases`` for commands and the Python API: bars in a terminal, else log lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.text import Text

from ada2i import storage
from ada2i.data.provenance import licence_warning
from ada2i.jobs import logs
from ada2i.store import RunFolder
from ada2i.usecases import Hooks, JobKind, OnEvent

if TYPE_CHECKING:
    from ada2i.jobs.terminal import Terminal


class TerminalHooks(Hooks):
    """Shows jobs in the terminal.

    Args:
        resume: What to do after an interruption, as a sentence.
    """

    def __init__(self, resume: str = "Repeat the command to resume.") -> None:
        self.resume = resume

    @contextmanager
    def job(self, kind: JobKind, uri: str, address: str) -> Iterator[OnEvent]:  # noqa: ARG002 - the address is private
        """Show a job until it ends; at Ctrl-C or SIGTERM print how to resume it."""
        notes = logs.notes()
        if kind == "train" and (left_out := RunFolder(uri).request().left_out):
            notes.print(f"{left_out} `--allow train-fitted-features` keeps them.", markup=False)
        if warning := licence_warning(_licences(kind, uri)):
            notes.print(Text(warning, "bold"))
        notes.print(f"{storage.name_of(uri)}: {self.resume[0].lower()}{self.resume[1:]}", markup=False)
        try:
            with _terminal(kind, uri) as terminal:
                yield terminal
        except (KeyboardInterrupt, SystemExit) as end:
            what = "Interrupted." if isinstance(end, KeyboardInterrupt) else "Stopped by SIGTERM."
            notes.print(f"{what} All processes of the job have been stopped. {self.resume}", markup=False)
            raise


def _licences(kind: JobKind, uri: str) -> dict[str, str]:
    """Return the licences of what a job encodes or trains on, as far as they are known before it starts."""
    if kind == "extract":
        from ada2i.extraction.encoders.registry import licence
        from ada2i.extraction.request import ExtractionRequest

        chosen = ExtractionRequest.load(storage.join(uri, "request.json")).config.encoders
        return {m: f"{encoder.spec}, {licence(encoder.spec, m)}" for m, encoder in chosen.items()}
    if kind == "train":
        from ada2i.training.evaluate import licences

        return licences(RunFolder(uri).request())
    return {}


def _terminal(kind: JobKind, uri: str) -> "Terminal":
    if kind == "extract":
        from ada2i.extraction.progress import TerminalProgress as ExtractionProgress

        return ExtractionProgress()
    if kind == "train":
        from ada2i.training.progress import TrainingProgress

        return TrainingProgress(uri)
    if kind == "search":
        from ada2i.search.progress import SearchProgress

        return SearchProgress(uri)
    if kind == "study":
        from ada2i.studies.progress import StudyProgress

        return StudyProgress(uri)
    from ada2i.prediction.progress import TerminalProgress as PredictionProgress

    return PredictionProgress()
