"""Raw corpus to feature set: nothing is encoded twice, nothing depends on the way, every row can be traced."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i import storage
from ada2i.data.manifest import Manifest, open_features, read_shard
from ada2i.data.provenance import EncoderInfo
from ada2i.errors import ConfigError, DataError
from ada2i.extraction.cache import VectorCache
from ada2i.extraction.publish import AUDIT, CARD, PROBLEMS, PROVENANCE
from ada2i.extraction.request import ExtractionRequest, ExtractionResult, ExtractSpec, prepare
from tests.unit.extraction import own
from tests.unit.extraction.talks import (
    COLUMNS,
    OWN,
    LocalWorkers,
    contents,
    extract_here,
    extracted,
    film,
    prepared,
    put,
    talk,
    tone,
    write_table,
)


@pytest.fixture(autouse=True)
def _count_from_zero() -> None:
    own.CALLS.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    talk(tmp_path / "talks")
    return tmp_path / "talks"


def table(uri: str, name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.get(storage.join(uri, name))))


def rows(uri: str) -> list[dict[str, Any]]:
    features = open_features(uri)
    return [row for entry in features.manifest.shards for row in read_shard(features, entry).to_pylist()]


def encoded(result: ExtractionResult) -> dict[str, tuple[int, int]]:
    return {modality: (work.encoded, work.reused) for modality, work in result.work.items()}


def test_vectors_are_those_of_the_media(folder: Path, tmp_path: Path) -> None:
    result = extracted(folder, tmp_path / "root")
    found = {row["utterance_id"]: row for row in rows(result.features)}
    assert len(found) == 8
    assert found["d1_0"]["text_feat"] == [len("words of d1_0"), 2]
    assert found["d1_0"]["audio_feat"][0] == 0.3 * 16_000
    assert found["d1_0"]["visual_feat"][0] == 2  # half a second at four frames a second
    assert {split: info.utterances for split, info in open_features(result.features).manifest.splits.items()} == {
        "dev": 2,
        "test": 2,
        "train": 4,
    }


def test_nothing_is_encoded_twice(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = extracted(folder, root, "first")
    assert encoded(first) == dict.fromkeys(("text", "audio", "visual"), (8, 0))
    again = extracted(folder, root, "again")
    assert encoded(again) == dict.fromkeys(("text", "audio", "visual"), (0, 8))
    assert again.features == first.features
    assert Counter(own.CALLS) == dict.fromkeys(("text", "audio", "visual"), 8)


def test_one_more_dialogue_costs_one(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = extracted(folder, root, "first")
    talk(folder, 5)
    more = extracted(folder, root, "more")
    assert encoded(more) == dict.fromkeys(("text", "audio", "visual"), (2, 8))
    assert more.features != first.features
    fresh = extracted(folder, tmp_path / "fresh")
    assert contents(more.features) == contents(fresh.features)


def test_another_encoder_costs_its_modality(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    extracted(folder, root, "first")
    other = extracted(folder, root, "other", {"encoders.audio.scale": 2.0})
    assert encoded(other) == {"text": (0, 8), "audio": (8, 0), "visual": (0, 8)}
    frames = extracted(folder, root, "frames", {"media.frames_per_second": 8})
    assert encoded(frames) == {"text": (0, 8), "audio": (0, 8), "visual": (8, 0)}


def test_equal_content_is_encoded_once_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = extracted(folder, root, "first")
    (tmp_path / "elsewhere").mkdir()
    again = extracted(folder.rename(tmp_path / "elsewhere" / "talks"), root, "again")
    assert encoded(again)["audio"] == (0, 8)
    assert again.features == first.features


def test_a_file_that_changed_is_read_again(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    extracted(folder, root, "first")
    put(folder, "audio/d0_0.wav", tone(0.3, 999))  # the same size
    changed = extracted(folder, root, "changed")
    assert encoded(changed) == {"text": (0, 8), "audio": (1, 7), "visual": (0, 8)}


@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_interrupted_extraction_ends_in_the_same_bytes(folder: Path, tmp_path: Path, after: int) -> None:
    whole = extracted(folder, tmp_path / "whole", overrides={"chunk.audio": 1})
    uri = prepared(folder, tmp_path / "root", "run", {"chunk.audio": 1})
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    with pytest.raises(KeyboardInterrupt):
        extract_here(uri, request, LocalWorkers(request, after))
    assert storage.children(storage.join(request.root, "features")) == []
    result = extract_here(uri, request)
    assert sum(work.reused for work in result.work.values()) == sum(
        work.utterances - work.encoded for work in result.work.values()
    )
    assert contents(result.features) == contents(whole.features)
    assert result.features.rpartition("/")[2] == whole.features.rpartition("/")[2]


def test_every_row_can_be_traced(folder: Path, tmp_path: Path) -> None:
    result = extracted(folder, tmp_path / "root")
    traced = table(result.features, PROVENANCE)
    of_rows = [(row["split"], row["dialogue_id"], row["utterance_index"]) for row in rows(result.features)]
    lines = traced.to_pylist()
    assert [(line["split"], line["dialogue_id"], line["utterance_index"]) for line in lines] == of_rows
    line = next(line for line in lines if line["utterance_id"] == "d1_0")
    audio = folder / "audio" / "d1_0.wav"
    assert line["audio_file"] == audio.as_uri()
    assert line["audio_digest"] == storage.digest(audio.read_bytes())
    assert line["text_digest"] == storage.digest(b"words of d1_0")
    assert dict(line["audio_measures"]) == {"first": 4800.0}
    metadata = traced.schema.metadata or {}
    assert EncoderInfo.model_validate_json(metadata[b"visual_encoder"]).name == "own-visual"


def test_a_piece_of_a_file_names_its_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    lines = talk(folder, video=False)
    put(folder, "long.wav", tone(2.0, 300))
    for number, line in enumerate(lines):
        line.update(audio="long.wav", start=number * 0.2, end=number * 0.2 + 0.15)
    write_table(folder, lines)
    result = extracted(folder, tmp_path / "root")
    assert encoded(result) == {"text": (8, 0), "audio": (8, 0)}
    line = table(result.features, PROVENANCE).to_pylist()[0]
    assert (line["audio_file"], line["audio_end"] - line["audio_start"]) == (
        (folder / "long.wav").as_uri(),
        pytest.approx(0.15),
    )


def test_dev_that_is_cut_from_train_can_be_traced(tmp_path: Path) -> None:
    lines = talk(tmp_path / "talks", 12, video=False)
    write_table(tmp_path / "talks", [line | {"split": line["split"].replace("dev", "train")} for line in lines])
    result = extracted(tmp_path / "talks", tmp_path / "root")
    manifest = open_features(result.features).manifest
    assert manifest.dev_rule
    lines = table(result.features, PROVENANCE).to_pylist()
    assert {line["split"] for line in lines} == {"train", "dev", "test"}
    assert all(line["audio_file"].endswith(f"{line['utterance_id']}.wav") for line in lines)


BAD = {  # by code: what is written for one modality of one utterance
    "unreadable": ("audio", b"this is no sound at all, but it is long enough"),
    "zero-length": ("audio", b""),
    "no-audio-stream": ("audio", film(1)),
    "too-short": ("audio", tone(0.05, 300)),
    "silent": ("audio", tone(0.5, 300, level=0.0)),
    "no-video-stream": ("video", tone(0.5, 300)),
}


def spoilt(folder: Path) -> None:
    """Write a corpus with every kind of bad media, one in each."""
    lines = talk(folder, 10)
    for line, (column, data) in zip(lines, BAD.values(), strict=False):
        put(folder, line[column], data)
    lines[10]["text"] = " "
    lines[11]["text"] = "nonsense"
    put(folder, lines[12]["audio"], tone(1.5, 300))  # beyond a limit of one second
    lines[13].update(start=0, end=0.95)  # of 0.3 s
    write_table(folder, lines)


def test_bad_media_are_missing_and_listed(tmp_path: Path) -> None:
    spoilt(tmp_path / "talks")
    limits = {"policy.unreadable": 0.2, "policy.named": 3, "media.limit_s": 1.0}
    result = extracted(tmp_path / "talks", tmp_path / "root", overrides=limits)
    listed = table(result.features, PROBLEMS).to_pylist()
    found = {(line["modality"], line["code"]) for line in listed}
    expected = {("visual" if column == "video" else "audio", code) for code, (column, _) in BAD.items()}
    # The empty text is no words for the table already.
    assert found == expected | {("text", "not-finite")}
    assert all(line["file"] and line["message"] for line in listed if line["modality"] != "text")
    origin = open_features(result.features).manifest.origin
    assert origin is not None
    assert origin.problems == len(listed) == result.problems
    assert len(origin.first_problems) == 3
    assert origin.modalities["audio"].missing == {
        code: 1 for code, (column, _) in sorted(BAD.items()) if column == "audio"
    }
    assert origin.modalities["audio"].flagged == {"over-long": 1, "truncated": 1}
    missing = [row["utterance_id"] for row in rows(result.features) if row["audio_feat"] is None]
    assert len(missing) == 5
    card = storage.get(storage.join(result.features, CARD)).decode()
    assert "| audio | 20 | 15 |" in card
    again = extracted(tmp_path / "talks", tmp_path / "root", "again", overrides=limits)
    assert encoded(again)["audio"] == (0, 20)  # what is bad is not read again


def test_too_many_unreadable_clips_publish_nothing(tmp_path: Path) -> None:
    spoilt(tmp_path / "talks")
    with pytest.raises(
        DataError, match=r"(?s)At most 5\.0% of the audio clips .* but 3 of 20 are\. Nothing was.*d0_0"
    ) as caught:
        extracted(tmp_path / "talks", tmp_path / "root")
    root = (tmp_path / "root").as_uri()
    assert storage.children(storage.join(root, "features")) == []
    assert caught.value.exit_code == 2
    listed = table(storage.join(root, "extraction", "runs", "run"), PROBLEMS)
    assert len(listed) == 7


def test_a_file_that_goes_while_it_is_planned_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    talk(folder)
    uri = prepared(folder, tmp_path / "root", "run", {"policy.unreadable": 0.5})
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    workers = LocalWorkers(request)
    digests = workers.worker.digests

    def late(files: Any) -> dict[str, str]:
        (folder / "audio" / "d0_0.wav").unlink()
        return digests(files)

    workers.worker.digests = late  # type: ignore[method-assign]
    result = extract_here(uri, request, workers)
    assert [line["code"] for line in table(result.features, PROBLEMS).to_pylist()] == ["missing"]


def test_a_file_that_changes_while_it_is_extracted_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    talk(folder, video=False)
    uri = prepared(folder, tmp_path / "root", "run")
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    workers = LocalWorkers(request)
    encode = workers.worker.encode

    def late(modality: Any, pieces: Any, parts: Any = (0,)) -> Any:
        put(folder, "audio/d0_0.wav", tone(0.3, 999))
        return encode(modality, pieces, parts)

    workers.worker.encode = late  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"d0_0\.wav must not change while features are extracted, but did"):
        extract_here(uri, request, workers)


BOTH = f"{OWN['text']},{own.__name__}:Words"


def test_encoders_side_by_side(folder: Path, tmp_path: Path) -> None:
    result = extracted(folder, tmp_path / "root", text=BOTH, overrides={f"encoders.text.{own.__name__}:Words.power": 2})
    found = {row["utterance_id"]: row["text_feat"] for row in rows(result.features)}
    assert found["d1_0"] == [len("words of d1_0"), 2, 9]
    manifest = open_features(result.features).manifest
    assert manifest.origin is not None
    info = manifest.origin.modalities["text"].encoder
    assert (info.name, info.width) == ("own-text+own-words", 3)
    assert info.licence == "own-text: Apache-2.0; own-words: MIT"
    assert info.settings == {"own-text.scale": 1.0, "own-words.power": 2}
    assert manifest.origin.recipe is not None
    assert manifest.origin.recipe.encoders["text"] == info.digest()
    schema = table(result.features, PROVENANCE).schema
    assert EncoderInfo.model_validate_json(schema.metadata[b"text_encoder"]) == info


def test_another_encoder_side_by_side_costs_only_itself(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    one = extracted(folder, root, "one")
    own.CALLS.clear()
    both = extracted(folder, root, "both", text=BOTH)
    assert encoded(both) == {"text": (8, 0), "audio": (0, 8), "visual": (0, 8)}
    assert Counter(own.CALLS) == {"text": 8}
    assert both.features != one.features
    own.CALLS.clear()
    other = extracted(folder, root, "other", text=",".join(reversed(BOTH.split(","))))
    assert own.CALLS == []
    assert other.features != both.features
    fresh = extracted(folder, tmp_path / "fresh", text=BOTH)
    assert contents(fresh.features) == contents(both.features)


@pytest.mark.parametrize("modality", ["text", "visual"])
def test_side_by_side_resumes_after_a_kill_between_encoders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    other = {"text": BOTH, "visual": f"{OWN['visual']},{own.__name__}:Brightness"}[modality]
    named: Any = {modality: other}
    expected = extracted(folder, tmp_path / "whole", **named)
    write, written = VectorCache.write, []

    def killed(store: VectorCache, outcomes: Any) -> None:
        written.append(1)
        if len(written) > 9:
            raise KeyboardInterrupt
        write(store, outcomes)

    with monkeypatch.context() as patch:
        patch.setattr(VectorCache, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            extracted(folder, tmp_path / "root", **named)
    again = extracted(folder, tmp_path / "root", **named)
    assert contents(again.features) == contents(expected.features)


def test_a_vector_that_one_encoder_lacks_is_missing(tmp_path: Path) -> None:
    lines = talk(tmp_path / "talks", video=False)
    lines[0]["text"] = "nonsense"
    write_table(tmp_path / "talks", lines)
    result = extracted(tmp_path / "talks", tmp_path / "root", text=BOTH)
    found = {row["utterance_id"]: row["text_feat"] for row in rows(result.features)}
    assert [name for name, vector in found.items() if vector is None] == ["d0_0"]
    assert [line["code"] for line in table(result.features, PROBLEMS).to_pylist()] == ["not-finite"]


def test_a_modality_without_a_vector_is_left_out(tmp_path: Path) -> None:
    lines = talk(tmp_path / "talks", video=False)
    for line in lines:
        put(tmp_path / "talks", line["audio"], tone(0.5, 300, level=0.0))
    result = extracted(tmp_path / "talks", tmp_path / "root")
    manifest = open_features(result.features).manifest
    assert list(manifest.modalities) == ["text"]
    assert manifest.origin is not None
    assert manifest.origin.modalities["audio"].missing == {"silent": 8}


def test_a_corpus_without_any_vector_is_refused(tmp_path: Path) -> None:
    lines = talk(tmp_path / "talks", video=False)
    for line in lines:
        put(tmp_path / "talks", line["audio"], tone(0.5, 300, level=0.0))
    with pytest.raises(DataError, match="must give a vector for at least one utterance, but gives none"):
        extracted(tmp_path / "talks", tmp_path / "root", text="none")


def test_the_manifest_names_the_other_files(folder: Path, tmp_path: Path) -> None:
    result = extracted(folder, tmp_path / "root")
    manifest = open_features(result.features).manifest
    assert set(manifest.files) == {AUDIT, CARD, PROBLEMS, PROVENANCE}
    for name, entry in manifest.files.items():
        storage.get_checked(storage.join(result.features, name), size=entry.size, sha256=entry.sha256)
    old = manifest.model_dump(exclude={"origin", "files"})
    assert Manifest.model_validate(old).origin is None  # sets that were imported, and older ones
    assert manifest.origin is not None
    assert manifest.origin.modalities["audio"].measures == {"first": 4800.0}


def test_damaged_chunks_are_made_again(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = extracted(folder, root, "first")
    chunk = next((root / "extraction" / "vectors").rglob("*.parquet"))
    chunk.write_bytes(chunk.read_bytes()[:-10])
    again = extracted(folder, root, "again")
    assert sum(work.encoded for work in again.work.values()) == 2
    assert again.features == first.features


def test_progress_is_reported(folder: Path, tmp_path: Path) -> None:
    uri = prepared(folder, tmp_path / "root", "run")
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    workers = LocalWorkers(request)
    extract_here(uri, request, workers)
    planned = workers.reported[0]
    assert planned["work"]["text"] == {"encoded": 8, "reused": 0, "utterances": 8}
    last = {reported["modality"]: reported for reported in workers.reported[1:]}
    assert {
        m: (reported["done"], reported["total"], reported["seconds_left"]) for m, reported in last.items()
    } == dict.fromkeys(("text", "audio", "visual"), (8, 8, 0))


# --- utterances without a label, times of recording, columns that are not read ---


def test_an_utterance_without_a_label_is_encoded_as_context(folder: Path, tmp_path: Path) -> None:
    lines = talk(folder)
    lines[1]["label"] = lines[6]["label"] = "  "
    write_table(folder, lines)
    features = open_features(extracted(folder, tmp_path / "root").features)
    found = {row["utterance_id"]: row for row in rows(features.uri)}
    assert {name for name, row in found.items() if row["label"] == -1} == {"d0_1", "d3_0"}
    assert found["d0_1"]["text_feat"] == [len("words of d0_1"), 2]
    assert features.manifest.labels == ("a", "b")
    assert sum(features.manifest.splits["train"].class_counts) == 3


def recorded(folder: Path, times: dict[str, str], dialogues: int = 8) -> None:
    lines = [line | {"recorded_at": times.get(line["dialogue_id"], "")} for line in talk(folder, dialogues)]
    write_table(folder, lines, (*COLUMNS, "recorded_at"))


def test_the_newest_dialogues_become_the_gate(folder: Path, tmp_path: Path) -> None:
    recorded(folder, {"d0": "2026-01-03", "d1": "2026-01-04T10:00:00+02:00", "d4": "2026-01-04T09:00:00Z"})
    features = open_features(extracted(folder, tmp_path / "root").features)
    assert {row["dialogue_id"] for row in rows(features.uri) if row["split"] == "gate"} == {"d4"}
    assert features.manifest.gate_rule is not None
    card = storage.get(storage.join(features.uri, CARD)).decode()
    assert f"The gate of 1 dialogue was cut from train: {features.manifest.gate_rule}." in card
    places = {row["dialogue_id"]: row["split"] for row in table(features.uri, PROVENANCE).to_pylist()}
    assert places["d4"] == "gate"
    none = open_features(extracted(folder, tmp_path / "root", "other", {"gate_share": 0.0}).features)
    assert "gate" not in none.manifest.splits


def test_a_train_that_the_gate_leaves_too_small_is_refused_before_encoding(folder: Path, tmp_path: Path) -> None:
    lines = [
        {**line, "recorded_at": "2026-01-01", "split": "test" if line["split"] == "test" else "train"}
        for line in talk(folder)
        if line["dialogue_id"] != "d0"
    ]
    write_table(folder, lines, (*COLUMNS, "recorded_at"))
    own.CALLS.clear()
    with pytest.raises(DataError, match=r"`train` must hold at least 2 dialogues to cut one from, but holds 1"):
        prepared(folder, tmp_path / "root", "run")
    assert own.CALLS == []


def test_columns_that_are_not_read_are_in_the_manifest_and_not_in_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    plain = open_features(extracted(folder, tmp_path / "one").features).manifest
    write_table(folder, [line | {"mood": "fine"} for line in talk(folder)], (*COLUMNS, "mood"))
    other = open_features(extracted(folder, tmp_path / "two").features).manifest
    assert (plain.unused, other.unused) == ({}, {"mood": "text"})
    assert other.fingerprint == plain.fingerprint


def test_the_caller_names_the_dataset(folder: Path, tmp_path: Path) -> None:
    spec = ExtractSpec(kind="folder", location=str(folder), encoders=OWN, dataset="Calls of May")
    job = prepare(spec, root=str(tmp_path / "root"), run_id="run")
    result = extract_here(job.uri, ExtractionRequest.load(storage.join(job.uri, "request.json")))
    assert open_features(result.features).manifest.dataset == "calls-of-may"
    with pytest.raises(ConfigError, match="must be resumed with the corpus and config"):
        prepare(spec.model_copy(update={"dataset": "other"}), root=str(tmp_path / "root"), run_id="run")
    with pytest.raises(DataError, match="must be neither empty nor a path"):
        prepare(spec.model_copy(update={"dataset": "../x"}), root=str(tmp_path / "root"), run_id="second")


@pytest.mark.parametrize("start", [1767225600, 1767225600000, 1767225600000000000, 1e200])
def test_a_time_that_is_none_costs_one_row(folder: Path, tmp_path: Path, start: float) -> None:
    lines = talk(folder)
    lines[1] |= {"start": start, "end": start * 2}
    write_table(folder, lines)
    made = extracted(folder, tmp_path / "root", overrides={"policy.unreadable": 0.2})
    found = {row["utterance_id"]: row for row in rows(made.features)}
    assert {name for name, row in found.items() if row["audio_feat"] is None} == {"d0_1"}
    assert {row["code"] for row in table(made.features, PROBLEMS).to_pylist()} == {"zero-length"}
