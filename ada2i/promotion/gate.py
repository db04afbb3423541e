"""The gate before an alias: judges a challenger, stores the verdict, and moves the alias or leaves it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ada2i.display import similar
from ada2i.errors import ConfigError
from ada2i.presets import explain
from ada2i.promotion.judge import judge
from ada2i.promotion.rules import GateRules
from ada2i.registry.aliases import CHAMPION, Move, check_alias, current, history, move
from ada2i.registry.verdicts import Judgement, Verdict, newest_verdicts, record
from ada2i.registry.versions import Version, find


def resolve_rules(fields: Mapping[str, Any]) -> GateRules:
    """Return the rules with some fields changed from their defaults.

    Raises:
        ConfigError: A field is unknown or has a bad value; the message lists all mistakes.
    """
    known = list(GateRules.model_fields)
    mistakes = [f"`{name}` is no rule.{similar(name, known)}" for name in fields if name not in known]
    rules = None
    try:
        rules = GateRules.model_validate({name: value for name, value in fields.items() if name in known})
    except ValidationError as problem:
        mistakes = [*explain(problem), *mistakes]
    if rules is None or mistakes:
        lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
        raise ConfigError(f"The gate's rules have mistakes:\n{lines}\nFields are {', '.join(known)}.")
    return rules


def dry_run(root: str, challenger: Version, rules: GateRules, *, by: str, alias: str = CHAMPION) -> Judgement:
    """Judge a challenger against the version that has the alias now; see ``judge``.

    Raises:
        ConfigError: The challenger already has the alias.
    """
    check_alias(alias)
    holder = current(root, challenger.model, alias)
    if holder is not None and holder.number == challenger.number:
        raise ConfigError(
            f"A version must not have the alias that it is judged for, but {challenger.name} is "
            f"{alias} already. Name another version."
        )
    champion = find(root, challenger.model, holder.number) if holder else None
    return judge(root, challenger, champion, rules, alias=alias, by=by)


def pass_gate(
    root: str, challenger: Version, rules: GateRules, *, by: str, alias: str = CHAMPION, override: str | None = None
) -> Verdict:
    """Judge a challenger, store the verdict, and give it the alias if the verdict allows it; calls can be repeated.

    Args:
        root: The storage root.
        challenger: The version that may be promoted.
        rules: The rules of the gate.
        by: Who or what requests it.
        alias: The alias.
        override: Why to promote despite a refusal; kept in the alias's history.

    Raises:
        ConflictError: Another process moved the alias in the meantime; the verdict stays stored.
        ConfigError: The challenger already has the alias, without a verdict.
    """
    if holding(root, challenger, alias) and (done := last_verdict(root, challenger, alias)):
        return done
    found = dry_run(root, challenger, rules, by=by, alias=alias)
    # The verdict is stored first: after a crash in between, the next call makes the missing move.
    verdict = record(root, found, by=by)
    if found.decision == "promote" or override:
        reason = f"verdict {verdict.n}, {found.facts}"
        if found.decision == "refuse":
            reason = f"{override} (overrides verdict {verdict.n}: {'; '.join(found.failures)})"
        move(root, challenger.model, alias, challenger.number, expected=found.champion, by=by, reason=reason)
    return verdict


def last_verdict(root: str, challenger: Version, alias: str = CHAMPION) -> Verdict | None:
    """Return the newest verdict on a version for an alias, or None if it was never judged."""
    known = (v for v in newest_verdicts(root, challenger.model) if v.judgement.challenger == challenger.number)
    return next((verdict for verdict in known if verdict.judgement.alias == alias), None)


def is_settled(root: str, challenger: Version, alias: str = CHAMPION) -> bool:
    """Return whether a version needs no further action: it was refused, or has or had the alias."""
    if any(past.number == challenger.number for past in history(root, challenger.model, alias)):
        return True
    verdict = last_verdict(root, challenger, alias)
    return verdict is not None and verdict.judgement.decision == "refuse"


def check_judged_again(root: str, challenger: Version, rules: GateRules, alias: str = CHAMPION) -> None:
    """Refuse to judge a version again with other rules, or after it was rolled back, without an explicit request.

    Raises:
        ConfigError: It was judged with other rules, or a rollback took the alias from it.
    """
    verdict = last_verdict(root, challenger, alias)
    if verdict is not None:
        then, now = verdict.judgement.rules, rules.model_dump(mode="json")
        changed = [
            f"{name} {then[name]} then, {now[name]} now" for name in now if name in then and then[name] != now[name]
        ]
        if changed:
            raise ConfigError(
                f"{challenger.name} must be judged again with the rules of verdict {verdict.n}, but "
                f"{'; '.join(changed)}. Repeat the command with those rules, or add `--again` to "
                "judge it by the new ones."
            )
    moves = [past for past in history(root, challenger.model, alias) if challenger.number in (past.number, past.before)]
    if moves and moves[-1].kind == "rollback" and moves[-1].before == challenger.number:
        last = moves[-1]
        raise ConfigError(
            f"{challenger.name} must not have been rolled back, but {last.by} took {alias} from it at {last.at} "
            f"({last.reason}). Judge another version, or add `--again` to judge this one again."
        )


def holding(root: str, version: Version, alias: str = CHAMPION) -> Move | None:
    """Return the move by which a version has an alias now, whatever the verdict, or None if it does not have it."""
    last = current(root, version.model, alias)
    return last if last is not None and last.number == version.number else None
