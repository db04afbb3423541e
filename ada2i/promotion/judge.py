"""Judges a challenger on dialogues that neither it nor the champion was trained or selected on.

The gate split of the challenger's features decides. If it leaves too few dialogues, the test split decides, and each
pair of versions that it judges is counted: a test split that decides every night is no longer an unbiased test.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ada2i.data.leakage import SEEN, read_dialogues
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.data.parquet import from_parquet, to_parquet
from ada2i.inference.reading import own_features
from ada2i.promotion.predictions import (
    dialogues,
    floor_predictions,
    in_common,
    predictions,
)
from ada2i.promotion.rules import GateRules, against, alone, enough, measure, not_used_up, over_floor
from ada2i.records import ModelScores, RuleResult
from ada2i.registry.verdicts import Judgement, use_test
from ada2i.registry.versions import Version

SPLITS = ("gate", "test")  # the first split with enough dialogues decides


@dataclass(frozen=True)
class _Evidence:
    """The evidence for a judgement.

    Attributes:
        split: The split of the dialogues.
        files: Predictions of the challenger and of the champion, if there is one, for the same dialogues.
        left_out: Numbers of dialogues of the split that do not count, by reason.
        digest: Digest of all dialogues and labels of the split.
        counts: Numbers of the dialogues and utterances that count.
    """

    split: str
    files: list[bytes]
    left_out: dict[str, int]
    digest: str
    counts: tuple[int, int]

    def same_dialogues(self, table: pa.Table) -> pa.Table:
        """Return the rows of predictions for the dialogues that count."""
        ids = from_parquet(self.files[0])["dialogue_id"]
        return table.filter(pc.is_in(table["dialogue_id"], value_set=ids.combine_chunks()))


def judge(
    root: str, challenger: Version, champion: Version | None, rules: GateRules, *, alias: str, by: str
) -> Judgement:
    """Compare a challenger with the champion by the rules; the alias is not moved.

    Every use of a test split is recorded.

    Args:
        root: The storage root.
        challenger: The version that may be promoted.
        champion: The version that has the alias; None: no version has it.
        rules: The rules of the gate.
        alias: The alias.
        by: Who or what requests it.

    Raises:
        DataError: The challenger's features have been deleted.
        IntegrityError: A shard or a version's file differs from its digest.
    """
    if champion is not None and champion.features.labels != challenger.features.labels:
        return _incomparable(challenger, champion, rules, alias)
    notes = list(_notes(champion))
    evidence = _decisive(root, challenger, champion, rules, notes)
    results = list(_enough(rules, evidence))
    uses = None
    if evidence.split == "test":
        against = champion.number if champion else None
        uses = use_test(root, challenger.model, evidence.digest, challenger=challenger.number, champion=against, by=by)
        results.append(not_used_up(rules, uses))
    sides = _sides(evidence, challenger.features.labels)
    results += _compared(rules, evidence, sides)
    if sides and rules.min_over_floor > -1:
        features = open_features(challenger.features.uri)
        name, table = floor_predictions(root, challenger, features, evidence.split)
        floor = to_parquet(evidence.same_dialogues(table))
        results.append(over_floor(rules, sides[0], floor, name=name))
    return Judgement(
        model=challenger.model,
        alias=alias,
        challenger=challenger.number,
        champion=champion.number if champion else None,
        decision="promote" if all(result.passed for result in results) else "refuse",
        split=evidence.split,
        dialogues=evidence.counts[0],
        utterances=evidence.counts[1],
        left_out=evidence.left_out,
        notes=tuple(notes),
        test_uses=uses,
        synthetic=challenger.features.synthetic,
        rules=rules.model_dump(mode="json"),
        results=tuple(results),
        sides=sides,
    )


def _decisive(
    root: str, challenger: Version, champion: Version | None, rules: GateRules, notes: list[str]
) -> _Evidence:
    """Return the evidence of the first split that has enough, or of the test split; note why the others do not."""
    features = open_features(challenger.features.uri)
    for split in (name for name in SPLITS[:-1] if name in features.manifest.splits):
        evidence = _gather(root, challenger, champion, features, split)
        lacking = [result.says for result in _enough(rules, evidence) if not result.passed]
        if not lacking:
            return evidence
        notes.append(f"The {split} split decides nothing: {'; '.join(lacking)}.")
    return _gather(root, challenger, champion, features, SPLITS[-1])


def _enough(rules: GateRules, evidence: _Evidence) -> Iterator[RuleResult]:
    return enough(rules, dialogues=evidence.counts[0], utterances=evidence.counts[1])


def _incomparable(challenger: Version, champion: Version, rules: GateRules, alias: str) -> Judgement:
    """Return the refusal of a version whose classes differ from the champion's."""
    listed = " and ".join(f"{v.name} has {', '.join(v.features.labels)}" for v in (challenger, champion))
    says = (
        f"two versions can be compared only if they have the same classes, but {listed}; promote by hand, with a "
        "reason: `ada2i registry promote`"
    )
    return Judgement(
        model=challenger.model,
        alias=alias,
        challenger=challenger.number,
        champion=champion.number,
        decision="refuse",
        split=SPLITS[0],
        dialogues=0,
        utterances=0,
        left_out={},
        notes=(),
        test_uses=None,
        synthetic=challenger.features.synthetic,
        rules=rules.model_dump(mode="json"),
        results=(RuleResult(rule="classes", passed=False, measured=0.0, bound=1.0, says=says),),
        sides=(),
    )


def _notes(champion: Version | None) -> Iterator[str]:
    if champion is None:
        yield "There is no champion yet: rules that compare with one were skipped."
    elif own_features(champion) is None:
        yield (
            f"The features of version {champion.number} were deleted ({champion.features.uri}): dialogues that it was "
            "trained on cannot be left out. If it has seen dialogues, the comparison favours it."
        )


def _gather(root: str, challenger: Version, champion: Version | None, features: FeatureSet, split: str) -> _Evidence:
    versions = [challenger, *([champion] if champion else [])]
    keep, left_out = _unseen(versions, features, split)
    tables = [predictions(root, version, features, split) for version in versions]
    files = in_common(tables, keep)
    counts = (dialogues(files[0]), files[0].num_rows)
    labelled = {name for table in tables for name in pc.unique(table["dialogue_id"]).to_pylist()}
    if unlabelled := [name for name in keep if name not in labelled]:
        left_out["none of their utterances has a label"] = len(unlabelled)
    if missing := len(keep) - len(unlabelled) - counts[0]:
        left_out["the champion cannot be run on them, or knows other labels"] = missing
    return _Evidence(split, [to_parquet(table) for table in files], left_out, _digest(tables[0]), counts)


def _unseen(versions: list[Version], features: FeatureSet, split: str) -> tuple[list[str], dict[str, int]]:
    """Return ids of the dialogues of a split that no version has seen, and numbers of others by reason.

    An id that also occurs in train or dev means the same dialogue, unless the set reuses ids in each split, as MELD
    does: then only the text identifies a dialogue.
    """
    held = read_dialogues(features, [split]).contents
    own = read_dialogues(features, SEEN).contents
    anew = bool(held.keys() & own.keys())
    left_out: dict[str, int] = {}
    for version in versions:
        trained_on = (
            features if version.features.fingerprint == features.manifest.fingerprint else own_features(version)
        )
        if trained_on is None:
            continue
        seen = read_dialogues(trained_on, SEEN)
        digests = seen.digests
        gone = {name for name, found in held.items() if found & digests or (not anew and name in seen.contents)}
        if gone:
            left_out[f"version {version.number} was trained or selected on them"] = len(gone)
        held = {name: found for name, found in held.items() if name not in gone}
    return list(held), left_out


def _digest(table: pa.Table) -> str:
    """Return a digest of the dialogues and labels of a split, independent of the features."""
    columns = (table[name].to_pylist() for name in ("dialogue_id", "utterance_index", "label"))
    return hashlib.sha256(repr(sorted(zip(*columns, strict=True))).encode()).hexdigest()[:32]


def _sides(evidence: _Evidence, labels: tuple[str, ...]) -> tuple[ModelScores, ...]:
    return tuple(measure(file, labels, evidence.split) for file in evidence.files) if evidence.counts[1] else ()


def _compared(rules: GateRules, evidence: _Evidence, sides: tuple[ModelScores, ...]) -> Iterator[RuleResult]:
    if sides:
        yield alone(rules, sides[0])
    if len(sides) == 2:
        yield from against(rules, evidence.files[0], evidence.files[1], (sides[0], sides[1]))
