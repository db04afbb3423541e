"""How a running job looks in a terminal: a bar over epochs, with the newest scores."""

import logging
import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ada2i import storage
from ada2i.jobs.events import Event
from ada2i.records import EpochRecord, RunRequest

log = logging.getLogger(__name__)


class TerminalProgress:
    """Shows events of a job; other lines of its log go to the logger at debug level."""

    def __init__(self, run_uri: str) -> None:
        self.training = RunRequest.load(storage.join(run_uri, "request.json")).config.training
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} epochs"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[newest]}"),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )
        self.tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self.console.print("Starting training on Ray…")
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event | str) -> None:
        """Show one event."""
        if isinstance(event, str):
            log.debug(event)
        elif event["kind"] == "epoch":
            self._epoch(event["seed"], EpochRecord.model_validate(event["record"]))
        elif event["kind"] == "started":
            self.console.print(f"{event['workers']} workers on {event['device']}, run {event['run_id']}")

    def _epoch(self, seed: int, record: EpochRecord) -> None:
        line = epoch_line(seed, record, self.training.epochs)
        if self.bars.disable:
            self.console.print(line, highlight=False, soft_wrap=True)
            return
        if seed not in self.tasks:
            self.tasks[seed] = self.bars.add_task(f"seed {seed}", total=self.training.epochs, newest="")
        newest = (
            f"loss {record.loss:.3f}  dev wF1 {record.dev_weighted_f1:.4f}  {record.utterances_per_second:,.0f} utt/s"
        )
        self.bars.update(self.tasks[seed], completed=record.epoch, newest=newest)


def epoch_line(seed: int, record: EpochRecord, epochs: int) -> str:
    """Return an epoch in one line, for logs."""
    ratio = " ".join(f"{m[0]} {value:.2f}" for m, value in record.ratio.items())
    return (
        f"seed {seed}  epoch {record.epoch:>3}/{epochs}  loss {record.loss:.4f}  dev wF1 {record.dev_weighted_f1:.4f}  "
        f"dev macro F1 {record.dev_macro_f1:.4f}  rho {ratio}  {record.utterances_per_second:,.0f} utt/s"
    )
