"""A judgement as a page of markdown."""

from collections.abc import Iterator

from ada2i.display import count
from ada2i.registry.verdicts import Judgement
from ada2i.reports.report import SYNTHETIC_NOTE, Row, markdown_table, markdown_text


def page(found: Judgement, heading: str = "") -> str:
    """Return a judgement as markdown: decision, rules with their numbers, scores, and what was left out.

    Args:
        found: The judgement.
        heading: Its heading, as markdown; by default the decision and its reason.
    """
    return "\n\n".join([heading or f"# {markdown_text(headline(found))}", *_blocks(found)]) + "\n"


def headline(found: Judgement, *, moved: bool = False) -> str:
    """Return the decision and its reason as one sentence; ``moved``: the version has the alias."""
    name = f"{found.model}@{found.challenger}"
    if found.decision == "promote" and moved:
        before = f"instead of version {found.champion}" if found.champion else f"the first {found.alias}"
        return f"{name} is {found.alias} now, {before}. On {found.facts}."
    if found.decision == "promote":
        return f"{name} may become {found.alias}. On {found.facts}."
    return f"{name} is refused as {found.alias}: {'; '.join(found.failures)}. On {found.facts}."


def protocol(found: Judgement) -> str:
    """Return sentences about what was compared, and on which data."""
    return " ".join(_protocol(found))


def _blocks(found: Judgement) -> Iterator[str]:
    if found.synthetic:
        yield f"**{SYNTHETIC_NOTE}**"
    yield markdown_table(
        [
            {"rule": result.rule, "passed": "yes" if result.passed else "NO", "what was found": result.says}
            for result in found.results
        ]
    )
    if found.sides:
        yield "## By class"
        yield markdown_table(_classes(found))
    yield "## Protocol"
    yield markdown_text(protocol(found))


def _classes(found: Judgement) -> list[Row]:
    numbers = [number for number in (found.challenger, found.champion) if number]
    rows: list[Row] = []
    for place, first in enumerate(found.sides[0].scores.classes):
        row: Row = {"class": first.label, "utterances": first.support}
        for number, side in zip(numbers, found.sides, strict=True):
            row[f"F1 of version {number}"] = f"{side.scores.classes[place].f1:.4f}"
        rows.append(row)
    return rows


def _protocol(found: Judgement) -> Iterator[str]:
    against = f"version {found.champion}" if found.champion else "no champion"
    yield (
        f"Version {found.challenger} against {against} on {count(found.dialogues, 'dialogue')} "
        f"({count(found.utterances, 'utterance')}) "
        f"of the {found.split} split; {found.rules['resamples']} resamples of dialogues, seed {found.rules['seed']}."
    )
    yield from (f"Left out: {count(number, 'dialogue')}, since {why}." for why, number in found.left_out.items())
    if found.test_uses is not None:
        yield (
            "The test split decided, not a gate split; pairs of versions that it has judged so far: "
            f"{found.test_uses}. The more it judges, the less it predicts for new dialogues."
        )
    yield from found.notes
