"""Changes of a table's columns as it is read: other names, and wide columns that become vectors."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import pairwise

from ada2i.data.schema import VECTOR_COLUMNS
from ada2i.errors import ConfigError, DataError
from ada2i.modalities import MODALITIES

_NUMBERED = re.compile(r"(.*?)(\d+)$", re.DOTALL)

_OTHER_NAMES: Mapping[str, str] = {  # by canonical name, how other tables call the column, without marks and capitals
    "dialogue_id": "dialogueid dialogid dialogue dialog conversationid conversation convid conv diaid videoid video "
    "callid threadid sessionid",
    "utterance_index": "utteranceindex utteranceidx utterancenumber uttidx uttindex turn turnid turnindex turnidx "
    "turnnumber index idx position clip clipid utteranceid uttid",
    "label": "labels emotion emotions emotionlabel sentiment class target category y",
    "split": "splits subset partition mode set datasetsplit fold",
}


@dataclass(frozen=True)
class Changes:
    """What happens to a table's columns as it is read.

    Attributes:
        rename: New names, by the file's own names.
        pack: By vector column, the pattern of the columns that it is packed from.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    pack: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, names: Sequence[str], uri: str) -> list[str]:
        """Return a file's column names after renaming.

        Raises:
            DataError: A column does not exist.
        """
        if missing := [name for name in self.rename if name not in names]:
            raise DataError(
                f"{uri} must have the column `{missing[0]}`, which is to be renamed, but has only {_shown(names)}. "
                "Correct `--rename`.",
                uri=uri,
                field=missing[0],
            )
        return [self.rename.get(name, name) for name in names]

    def packed(self, names: Sequence[str], uri: str) -> dict[str, list[str]]:
        """Return the columns of which each vector column is packed, by the number at their end.

        Raises:
            DataError: No column fits, two have the same number, or the vector column exists.
        """
        found = {}
        for column, pattern in self.pack.items():
            matches = [(m, name) for name in names if fnmatchcase(name, pattern) and (m := _NUMBERED.match(name))]
            numbered = sorted((int(match[2]), name) for match, name in matches)
            if problem := _unfit(column, pattern, numbered, names):
                raise DataError(f"{uri} must have {problem}", uri=uri, field=column)
            found[column] = [name for _, name in numbered]
        return found


NO_CHANGES = Changes()


def _unfit(column: str, pattern: str, numbered: Sequence[tuple[int, str]], names: Sequence[str]) -> str:
    if column in names:
        return f"no column `{column}` if columns are packed into it, but has it. Omit `--pack`, or rename the column."
    if not numbered:
        return (
            f"columns that match {pattern!r} and end with a number, but has only {_shown(names)}. Correct the pattern."
        )
    twice = next((pair for pair in pairwise(numbered) if pair[0][0] == pair[1][0]), None)
    if twice:
        (number, first), (_, second) = twice
        return (
            f"one column with number {number} that matches {pattern!r}, but has `{first}` and `{second}`. Rename one."
        )
    held = [number for number, _ in numbered]
    gap = next((number for number in range(held[0], held[-1]) if number not in set(held)), None)
    if gap is not None:
        return (
            f"columns without a gap in their numbers that match {pattern!r}, but lacks number {gap} between {held[0]} "
            f"and {held[-1]}. Add the column, or narrow the pattern."
        )
    return ""


def parse_changes(rename: Mapping[str, str] | Iterable[str] = (), pack: Iterable[str] = ()) -> Changes:
    """Return changes from texts ``a=b`` (or a mapping) and patterns ``text_*`` or ``emb_*=text_feat``.

    Raises:
        ConfigError: A text has another form, a name is given twice, or a pattern's modality is unknown.
    """
    pairs = rename.items() if isinstance(rename, Mapping) else [_pair(text) for text in rename]
    renamed: dict[str, str] = {}
    for old, new in pairs:
        if old in renamed or new in renamed.values():
            raise ConfigError(f"`--rename` must give each column one name, but repeats {old}={new}.", field="rename")
        renamed[old] = new
    packed: dict[str, str] = {}
    for text in pack:
        column, pattern = _packing(text)
        if column in packed:
            raise ConfigError(f"`--pack` must fill `{column}` once, but is given twice. Use one pattern.", field="pack")
        packed[column] = pattern
    return Changes(renamed, packed)


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not old or not equals or not new:
        raise ConfigError(
            f"`--rename` takes OLD=NEW, but got {text!r}. Write for example `--rename conversation_id=dialogue_id`.",
            field="rename",
        )
    return old, new


def _packing(text: str) -> tuple[str, str]:
    pattern, equals, column = text.partition("=")
    if not equals:
        column = next((name for name, modality in VECTOR_COLUMNS.items() if pattern.startswith(modality)), "")
    if column not in VECTOR_COLUMNS or not pattern:
        raise ConfigError(
            f"`--pack` takes a pattern that begins with text, audio or visual, or PATTERN=COLUMN with a column of "
            f"{', '.join(VECTOR_COLUMNS)}, but got {text!r}. Write for example `--pack 'emb_*=text_feat'`.",
            field="pack",
        )
    return column, pattern


# --- suggestions ---


def likely(column: str, names: Collection[str]) -> str | None:
    """Return the column that may hold what a missing one should."""
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in names if name not in _OTHER_NAMES}
    known = (column.replace("_", ""), *_OTHER_NAMES.get(column, "").split())
    if found := next((plain[other] for other in known if other in plain), None):
        return found
    close = get_close_matches(column.replace("_", ""), plain, 1, 0.8)
    return plain[close[0]] if close else None


def wide(names: Collection[str]) -> list[str]:
    """Return options of ``--pack`` for groups of columns that differ only in the number at their end."""
    groups: dict[str, int] = defaultdict(int)
    for name in names:
        if match := _NUMBERED.match(name):
            groups[match[1]] += 1
    found = []
    for prefix, number in groups.items():
        if number > 1 and prefix:
            modality = next((m for m in MODALITIES if prefix.startswith(m)), None)
            found.append(f"--pack '{prefix}*'" if modality else f"--pack '{prefix}*=text_feat'")
    return found[:3]


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(f"`{name}`" for name in names[:20]) or "none") + more
