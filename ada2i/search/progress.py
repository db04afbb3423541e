"""The progress of a search in a terminal: a bar over trials with the best score, and one bar per running trial."""

from rich.progress import TaskID, TextColumn

from ada2i import storage
from ada2i.display import count
from ada2i.jobs.events import Event
from ada2i.jobs.terminal import Terminal
from ada2i.search.request import REQUEST, SearchRequest


class SearchProgress(Terminal):
    """Follows a search."""

    def __init__(self, uri: str) -> None:
        super().__init__("Starting the search on Ray…", TextColumn("{task.fields[newest]}"))
        self.epochs = SearchRequest.load(storage.join(uri, REQUEST)).run.config.training.epochs
        self.done = self.total = 0
        self.whole: TaskID | None = None
        self.running: dict[int, TaskID] = {}

    def show(self, event: Event) -> None:
        """Show the plan, an epoch or the end of a trial, or a final."""
        if event["kind"] in ("searching", "finals"):
            self._begin(event)
        elif event["kind"] == "trial_epoch":
            self._epoch(event)
        elif event["kind"] in ("trial", "final", "final_failed"):
            self._end(event)

    def _begin(self, event: Event) -> None:
        searching = event["kind"] == "searching"
        self.done, self.total = (event["done"], event["trials"]) if searching else (0, event["left"])
        self.whole = self.bars.add_task("trials" if searching else "finals", total=self.total, newest="")
        self.bars.update(self.whole, completed=self.done)
        self.console.print(line(event))

    def _epoch(self, event: Event) -> None:
        number = event["trial"]
        if number not in self.running:
            self.running[number] = self.bars.add_task(f"  trial {number}", total=self.epochs, newest="")
        self.bars.update(self.running[number], completed=event["epoch"], newest=f"dev wF1 {event['score']:.4f}")

    def _end(self, event: Event) -> None:
        self.done += 1
        self.console.print(f"{self.done:>4}/{self.total}  {line(event)}", markup=False)
        if event["kind"] == "trial" and (bar := self.running.pop(event["trial"], None)) is not None:
            self.bars.remove_task(bar)
        if self.whole is not None:
            newest = f"best {event['best_score']:.4f}, trial {event['best']}" if event["kind"] == "trial" else ""
            self.bars.update(self.whole, completed=self.done, newest=newest)


def line(event: Event) -> str:
    """Return an event of a search as one line, for logs."""
    if event["kind"] == "searching":
        before = f", {event['done']} of them done before" if event["done"] else ""
        where = f" on {event['device']} ({event['reason']})" if "device" in event else ""
        return f"{count(event['trials'], 'trial')}{before}, {event['concurrent']} at a time{where}"
    if event["kind"] == "finals":
        configs, seeds = count(event["configs"], "config"), count(event["seeds"], "seed")
        return f"Training the best {configs} again on {seeds}: {count(event['left'], 'training')} left"
    if event["kind"] == "final":
        return f"final of trial {event['trial']}, seed {event['seed']}: dev wF1 {event['score']:.4f}"
    if event["kind"] == "final_failed":
        return f"final of trial {event['trial']}, {event['message']}"
    best = f"; best so far {event['best_score']:.4f} (trial {event['best']})"
    score = "" if event["state"] in ("diverged", "failed") else f": dev wF1 {event['score']:.4f}"
    return f"trial {event['trial']} {event['state']} after {count(event['epochs'], 'epoch')}{score}{best}"
