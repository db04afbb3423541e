"""Chooses the next config as a pure function of the records, so an interrupted search continues identically."""

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ada2i.search.records import Choice, Dimension, LogUniform, Params, Space, TrialRecord, Value, Whole

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_RANDOM = 8  # trials before Optuna's estimator starts to learn from them
_DIGITS = 4  # significant digits of a suggestion; finer differences are smaller than those between seeds


def suggest(space: Space, *, seed: int, number: int, known: Iterable[TrialRecord], running: Iterable[Params]) -> Params:
    """Return the params of a trial, by Optuna's tree-structured Parzen estimator.

    Args:
        space: The varied fields.
        seed: Seed of the search.
        number: Number of the trial; with the seed it decides all draws.
        known: Finished trials; a trial that ASHA stopped counts less than any that went further.
        running: Params of trials that are running, which are not suggested again.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {field: _distribution(kind) for field, kind in space.fields.items()}
    sampler = optuna.samplers.TPESampler(seed=_mix(seed, number), n_startup_trials=_RANDOM)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how Optuna keeps params
        study.add_trials([_ended(record, kinds) for record in known if _inside(record.params, space)])
        study.add_trials([_begun(params, kinds) for params in running if _inside(params, space)])
    found = study.ask(kinds).params
    return {field: _rounded(kind, found[field]) for field, kind in space.fields.items()}


def _mix(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**32  # numpy's seeds have 32 bits


def _distribution(kind: Dimension) -> "BaseDistribution":
    from optuna import distributions

    if isinstance(kind, Choice):
        return distributions.CategoricalDistribution(kind.values)
    if isinstance(kind, Whole):
        return distributions.IntDistribution(kind.low, kind.high)
    return distributions.FloatDistribution(kind.low, kind.high, log=isinstance(kind, LogUniform))


def _inside(params: Params, space: Space) -> bool:
    """Return whether params are in a space; those of the unchanged config may be outside."""
    return all(kind.holds(params[field]) for field, kind in space.fields.items())


def _ended(record: TrialRecord, kinds: "Mapping[str, BaseDistribution]") -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    if record.state == "stopped":
        reached = {len(record.curve): record.score}  # Optuna reads only the last step
        return create_trial(
            state=TrialState.PRUNED, params=dict(record.params), distributions=dict(kinds), intermediate_values=reached
        )
    return create_trial(value=record.score, params=dict(record.params), distributions=dict(kinds))


def _begun(params: Params, kinds: "Mapping[str, BaseDistribution]") -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    return create_trial(state=TrialState.RUNNING, params=dict(params), distributions=dict(kinds))


def _rounded(kind: Dimension, value: Value) -> Value:
    if isinstance(kind, Choice | Whole) or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), kind.low), kind.high)
