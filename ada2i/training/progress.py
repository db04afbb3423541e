"""The progress of a training run in a terminal: a bar over epochs, with the newest scores."""

from rich.progress import TaskID, TextColumn, TimeRemainingColumn

from ada2i.jobs.events import Event
from ada2i.jobs.terminal import Terminal, started_line
from ada2i.records import EpochRecord
from ada2i.store import RunFolder


class TrainingProgress(Terminal):
    """Follows a run."""

    def __init__(self, run_uri: str) -> None:
        columns = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[newest]}"))
        super().__init__("Starting training…", *columns, unit="epochs")
        self.training = RunFolder(run_uri).request().config.training
        self.tasks: dict[int, TaskID] = {}

    def show(self, event: Event) -> None:
        """Show the start or an epoch."""
        if event["kind"] == "epoch":
            self._epoch(event["seed"], EpochRecord.model_validate(event["record"]))
        elif event["kind"] == "started":
            self.console.print(started_line(event, "run"))

    def _epoch(self, seed: int, record: EpochRecord) -> None:
        line = epoch_line(seed, record, self.training.epochs)
        if self.bars.disable:
            self.console.print(line)
            return
        if seed not in self.tasks:
            self.tasks[seed] = self.bars.add_task(f"seed {seed}", total=self.training.epochs, newest="")
        newest = f"loss {record.loss:.3f}  {_dev(record)}  {record.utterances_per_second:,.0f} utt/s"
        self.bars.update(self.tasks[seed], completed=record.epoch, newest=newest)


def _dev(record: EpochRecord) -> str:
    mae = (record.model_extra or {}).get("dev_mae")
    return f"dev wF1 {record.dev_weighted_f1:.4f}" if mae is None else f"dev MAE {mae:.4f}"


def epoch_line(seed: int, record: EpochRecord, epochs: int) -> str:
    """Return an epoch as one line, for logs."""
    ratio = " ".join(f"{m[0]} {value:.2f}" for m, value in record.ratio.items())
    return (
        f"seed {seed}  epoch {record.epoch:>3}/{epochs}  loss {record.loss:.4f}  {_dev(record)}  "
        f"dev macro F1 {record.dev_macro_f1:.4f}  rho {ratio}  {record.utterances_per_second:,.0f} utt/s"
    )
