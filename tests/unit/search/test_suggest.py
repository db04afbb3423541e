"""Suggestions: inside the space, the same for the same knowledge, and better with it than without."""

from collections.abc import Callable

from ada2i.search.records import Choice, LogUniform, Params, Space, TrialRecord, Uniform, Whole
from ada2i.search.suggest import suggest

SPACE = Space(
    fields={
        "rate": LogUniform(low=1e-5, high=1e-1),
        "drop": Uniform(low=0.0, high=0.9),
        "batch": Whole(low=2, high=5),
        "kind": Choice(values=("a", "b", True)),
    }
)
ONE = Space(fields={"x": Uniform(low=0.0, high=1.0)})


def record(number: int, params: Params, score: float, state: str = "complete") -> TrialRecord:
    return TrialRecord.model_validate(
        {"number": number, "params": params, "state": state, "curve": (score,), "score": score, "seconds": 1.0}
    )


def searched(score: Callable[[float], float], trials: int, *, informed: bool) -> list[float]:
    """Return what is tried one after the other."""
    known: list[TrialRecord] = []
    for number in range(trials):
        params = suggest(ONE, seed=0, number=number, known=known if informed else (), running=())
        known.append(record(number, params, score(float(params["x"]))))
    return [float(each.params["x"]) for each in known]


def test_suggestions_lie_in_the_space_and_differ() -> None:
    found = [suggest(SPACE, seed=0, number=number, known=(), running=()) for number in range(20)]
    assert all(kind.holds(params[name]) for params in found for name, kind in SPACE.fields.items())
    assert all(type(params["batch"]) is int for params in found)
    assert {params["kind"] for params in found} == {"a", "b", True}
    assert len({params["drop"] for params in found}) == 20


def test_the_same_knowledge_gives_the_same_suggestion() -> None:
    known = [record(n, suggest(SPACE, seed=3, number=n, known=(), running=()), n / 20) for n in range(12)]
    running = [known[0].params]
    first, second = (suggest(SPACE, seed=3, number=12, known=known, running=running) for _ in range(2))
    assert first == second
    assert first != suggest(SPACE, seed=4, number=12, known=known, running=running)
    assert first != suggest(SPACE, seed=3, number=13, known=known, running=running)


def test_it_learns_from_what_is_known() -> None:
    informed = searched(lambda x: 1 - abs(x - 0.3), 30, informed=True)[-10:]
    blind = searched(lambda x: 1 - abs(x - 0.3), 30, informed=False)[-10:]
    assert sum(abs(x - 0.3) for x in informed) < 0.5 * sum(abs(x - 0.3) for x in blind)


def test_what_was_stopped_or_diverged_is_known_too() -> None:
    known = [record(n, {"x": 0.8 + n / 100}, 0.0, "diverged") for n in range(10)]
    known += [record(n, {"x": 0.5 + n / 100}, 0.3, "stopped") for n in range(10, 20)]
    known += [record(n, {"x": 0.2 + n / 1000}, 0.7) for n in range(20, 26)]
    found = [float(suggest(ONE, seed=s, number=26, known=known, running=())["x"]) for s in range(10)]
    assert max(found) < 0.4


def test_a_stopped_trial_counts_by_its_score_and_not_by_its_best_epoch() -> None:
    """With ``training.selection`` = last, the score of a trial that became worse is low."""

    def stopped(number: int, x: float, score: float) -> TrialRecord:
        facts = {"params": {"x": x}, "state": "stopped", "curve": (0.9, score), "score": score}
        return TrialRecord.model_validate({"number": number, "seconds": 1.0, **facts})

    known = [stopped(n, 0.8 + n / 100, 0.1) for n in range(10)] + [
        stopped(n, 0.1 + n / 100, 0.5) for n in range(10, 20)
    ]
    found = [float(suggest(ONE, seed=s, number=26, known=known, running=())["x"]) for s in range(10)]
    assert sum(x < 0.5 for x in found) > 7


def test_a_config_outside_the_space_is_passed_over() -> None:
    outside = [record(0, {"x": 2.0}, 0.9)]
    assert suggest(ONE, seed=0, number=1, known=outside, running=[{"x": 2.0}]) == suggest(
        ONE, seed=0, number=1, known=(), running=()
    )
