"""Records of a search for a config: spaces, trials, finals. All are stored as JSON.

Scores are weighted F1 on dev; a search uses no other scores.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ada2i.config import Config, TrainConfig
from ada2i.records import FeatureInfo, Record, RunId, Summary

Value = bool | int | float | str
Params = dict[str, Value]  # by dotted config field


class _Range(Config):
    low: float
    high: float

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"`low` must be less than `high`, but they are {self.low:g} and {self.high:g}")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """Its lowest and highest value."""
        return (self.low, self.high)

    def holds(self, value: object) -> bool:
        """Return whether a value belongs to it."""
        return isinstance(value, int | float) and self.low <= value <= self.high


class Uniform(_Range):
    """A number between two bounds, uniformly distributed."""

    kind: Literal["uniform"] = "uniform"

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class LogUniform(_Range):
    """A number between two bounds, with a uniform logarithm."""

    kind: Literal["loguniform"] = "loguniform"
    low: float = Field(gt=0.0)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}, by powers"


class Whole(_Range):
    """A whole number between two bounds, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low} to {self.high}, whole"


class Choice(Config):
    """One of several values."""

    kind: Literal["choice"] = "choice"
    values: tuple[Value, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({(type(value), value) for value in self.values}) != len(self.values):
            raise ValueError("`values` must differ from one another")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """All its values."""
        return self.values

    def holds(self, value: object) -> bool:
        """Return whether a value belongs to it."""
        return value in self.values

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


Dimension = Annotated[Uniform | LogUniform | Whole | Choice, Field(discriminator="kind")]


class Space(Config):
    """The distribution of each varied field, by dotted config field."""

    fields: dict[str, Dimension] = Field(min_length=1)


def score_of(curve: Sequence[float], selection: str) -> float:
    """Return the dev weighted F1 of the epoch that is selected so far: the last one, or the best one."""
    return curve[-1] if selection == "last" else max(curve)


class TrialRecord(Record):
    """The end of one trial; written once.

    Attributes:
        number: Number, counted from 0; 0 is the unchanged config.
        params: Its params; for 0 those of the config.
        state: ``complete``; ``stopped``: by ASHA, before its last epoch; ``diverged``; ``failed``: no attempt ended.
        curve: Dev weighted F1 of its first seed by epoch.
        score: Score of the selected epoch, mean over seeds if the trial is complete; 0 if it diverged or failed.
        seconds: Duration of its first seed.
        problem: Why it diverged or failed.
    """

    schema_version: Literal[1] = 1
    number: int
    params: Params
    state: Literal["complete", "stopped", "diverged", "failed"]
    curve: tuple[float, ...]
    score: float
    seconds: float
    problem: str = ""


class Final(Record):
    """One config, trained again on seeds that no trial used.

    Attributes:
        trial: The trial whose config it is; 0 is the unchanged config.
        run_id: The run that trained it.
        dev_weighted_f1: Over its seeds; None if one of them diverged.
        problem: Why there is no score.
    """

    trial: int
    run_id: RunId
    params: Params
    dev_weighted_f1: Summary | None
    problem: str = ""


class SearchResult(Record):
    """The whole result of a search."""

    schema_version: Literal[1] = 1
    search_id: RunId
    features: FeatureInfo
    config: TrainConfig  # before anything was varied
    space: Space
    trials: tuple[TrialRecord, ...]
    finals: tuple[Final, ...]
    winner: int  # a trial's number
    run_id: RunId  # the winner's

    @property
    def best(self) -> Final:
        """The winner's final."""
        return next(final for final in self.finals if final.trial == self.winner)


class SearchOutcome(Record):
    """A search, and the test of its winner: the content of the ``--json`` file."""

    schema_version: Literal[1] = 1
    search: SearchResult
    version: str  # MODEL@NUMBER
    test_summary: dict[str, Summary]
