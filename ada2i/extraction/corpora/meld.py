"""Reads MELD as its authors release it: ``MELD.Raw``, or its three CSVs with one folder of clips per split."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from ada2i import storage
from ada2i.data.splits import normalise_split
from ada2i.errors import DataError
from ada2i.extraction.corpora.assemble import published
from ada2i.extraction.corpora.files import files_below, named, parts_of
from ada2i.extraction.utterance import BROKEN_CLIP, MISSING_CLIP, Clip, Corpus, Utterance
from ada2i.importers.checks import check_keys, check_order
from ada2i.importers.datasets import dataset
from ada2i.importers.labels import classes
from ada2i.importers.meld import FILES, read_annotations
from ada2i.importers.rows import Rows

LICENCE = "annotations GPL-3.0; the clips are from the series Friends, for research"

# Damaged in the release itself: two are cut short, two last minutes and show other scenes.
BROKEN = frozenset({("train", "dia125_utt3"), ("dev", "dia110_utt7"), ("test", "dia38_utt4"), ("test", "dia220_utt0")})

# Folder names of the release; plain `train`, `dev` and `test` are accepted, too.
_FOLDERS: Mapping[str, str] = {
    "train_splits": "train",
    "dev_splits_complete": "dev",
    "output_repeated_splits_test": "test",
}
# Matches the full name, since the release also holds `._dia0_utt0.mp4` and `final_videos_testdia0_utt0.mp4`.
_CLIP = re.compile(r"(dia\d+_utt\d+)\.mp4")

Key = tuple[str, str]  # split and name: each split reuses names


def read_meld(location: str) -> Corpus:
    """Read MELD; utterances with a missing or broken clip keep their text.

    The CSVs and the clips, named ``dia<d>_utt<u>.mp4``, may be anywhere below the folder; a clip's split is that of the
    nearest parent folder that names one. Utterances are ordered by ``Utterance_ID``, which has gaps, so it is not an
    index.

    Args:
        location: A path, or any URI that fsspec opens.

    Raises:
        DataError: A CSV is absent, damaged or not MELD's, or two clips have the same name.
    """
    files = files_below(location)
    source, meld = storage.public(location), dataset("meld")
    rows, _ = read_annotations(source, _csvs(source, files))
    check_keys(rows)
    check_order(rows)
    classes(rows, meld.labels)
    clips, stray = _clips(files)
    problems = [f"Known to be broken, so read without its clip: {name} of {split}." for split, name in sorted(BROKEN)]
    if stray:
        problems.append(f"{len(stray)} clips are not in a folder of a split and are left out, such as {stray[0]}.")
    return published(meld, source, LICENCE, _utterances(rows, clips), problems)


def _csvs(source: str, files: Sequence[str]) -> dict[str, str]:
    """Return each split's CSV; if the release holds copies, the one nearest to the top folder."""
    found = {}
    for split, name in FILES.items():
        if not (held := named(files, name)):
            raise DataError(
                f"{source} must hold MELD's {', '.join(FILES.values())}, but has no {name}. Add the file; it "
                "comes with the release.",
                uri=source,
                field=name,
            )
        found[split] = held[0]
    return found


def _clips(files: Sequence[str]) -> tuple[dict[Key, str], list[str]]:
    """Return clips by split and name, and clips without a folder that names the split."""
    clips: dict[Key, str] = {}
    stray = []
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*map(parts_of, files), strict=False))))
    for uri in files:
        *folders, name = parts_of(uri)[shared:]  # a folder named `test` that holds all splits does not count
        if not (match := _CLIP.fullmatch(name)):
            continue
        split = next((split for folder in reversed(folders) if (split := _split_of(folder))), None)
        if split is None:
            stray.append(uri)
        elif (key := (split, match[1])) in clips:
            raise DataError(
                f"{uri} must be the only clip {match[1]} of {split}, but {clips[key]} is another. Remove one of them.",
                uri=uri,
            )
        else:
            clips[key] = uri
    return clips, stray


def _split_of(folder: str) -> str | None:
    return _FOLDERS.get(folder) or normalise_split(folder)


def _utterances(rows: Rows, clips: Mapping[Key, str]) -> Iterator[Utterance]:
    for row in rows.columns.to_pylist():
        name = f"dia{row['dialogue_id']}_utt{row['utterance_id']}"  # the clip's name, by which users find it
        key = (row["split"], name)
        clip = Clip(clips[key]) if key in clips and key not in BROKEN else None
        yield Utterance(
            dialogue_id=row["dialogue_id"],
            utterance_index=row["utterance_index"],
            utterance_id=name,
            split=row["split"],
            speaker=row["speaker"],
            label=row["label"],
            text=row["text"],
            audio=clip,
            video=clip,
            notes=_notes(key, clips),
        )


def _notes(key: Key, clips: Mapping[Key, str]) -> tuple[str, ...]:
    if key in BROKEN:
        return (BROKEN_CLIP,)
    return () if key in clips else (MISSING_CLIP,)
