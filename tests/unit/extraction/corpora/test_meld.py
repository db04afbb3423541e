from collections import Counter
from pathlib import Path

import pytest

from ada2i.errors import DataError
from ada2i.extraction.corpora.meld import BROKEN, read_meld
from ada2i.extraction.utterance import BROKEN_CLIP, MISSING_CLIP
from tests.unit.extraction.corpora.trees import by_id, ends, in_memory, planted

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\r\n"
TEXTS = {
    "train": "1,Oh,Joey,joy,x,0,3\r\n2,Hi,Ross,anger,x,0,1\r\n3,Broken,Ross,anger,x,125,3\r\n",
    "dev": "1,Well,Monica,fear,x,0,0\r\n",
    "test": "1,No,Rachel,disgust,x,0,0\r\n2,Yes,Ross,sadness,x,0,5\r\n",
}
CSVS = {f"{split}_sent_emo.csv": HEADER + body for split, body in TEXTS.items()}
CLIPS = (
    "train/train_splits/dia0_utt1.mp4",
    "train/train_splits/dia125_utt3.mp4",
    "dev/dev_splits_complete/dia0_utt0.mp4",
    "test/output_repeated_splits_test/dia0_utt0.mp4",
    "test/output_repeated_splits_test/._dia0_utt5.mp4",
    "test/output_repeated_splits_test/final_videos_testdia0_utt5.mp4",
)


def test_the_release_as_it_unpacks(tmp_path: Path) -> None:
    copy = {"train/train_sent_emo.csv": "a copy that is not read"}
    corpus = read_meld(planted(tmp_path, {**CSVS, **copy, **dict.fromkeys(CLIPS, "")}))
    found = by_id(corpus)
    assert {key: (item.dialogue_id, item.utterance_index) for key, item in found.items()} == {
        ("train", "dia0_utt1"): ("0", 0),
        ("train", "dia0_utt3"): ("0", 1),
        ("train", "dia125_utt3"): ("125", 0),
        ("dev", "dia0_utt0"): ("0", 0),
        ("test", "dia0_utt0"): ("0", 0),
        ("test", "dia0_utt5"): ("0", 1),
    }
    assert {key: (ends(item.audio.uri if item.audio else None), item.notes) for key, item in found.items()} == {
        ("train", "dia0_utt1"): ("train_splits/dia0_utt1.mp4", ()),
        ("train", "dia0_utt3"): (None, (MISSING_CLIP,)),
        ("train", "dia125_utt3"): (None, (BROKEN_CLIP,)),
        ("dev", "dia0_utt0"): ("dev_splits_complete/dia0_utt0.mp4", ()),
        ("test", "dia0_utt0"): ("output_repeated_splits_test/dia0_utt0.mp4", ()),
        ("test", "dia0_utt5"): (None, (MISSING_CLIP,)),
    }
    assert all(item.video == item.audio for item in corpus.utterances)
    first = found["train", "dia0_utt1"]
    assert (first.text, first.speaker, first.label) == ("Hi", "Ross", "anger")
    assert [item.split for item in corpus.utterances] == ["dev", "test", "test", "train", "train", "train"]


def test_plain_folders_in_any_store() -> None:
    clips = dict.fromkeys(("media/train/dia0_utt1.mp4", "media/valid/dia0_utt0.mp4", "media/x/dia0_utt5.mp4"), "")
    corpus = read_meld(in_memory("meld-plain", {f"csv/{name}": text for name, text in CSVS.items()} | clips))
    uris = {key: item.video.uri for key, item in by_id(corpus).items() if item.video}
    assert uris == {
        ("train", "dia0_utt1"): "memory:///meld-plain/media/train/dia0_utt1.mp4",
        ("dev", "dia0_utt0"): "memory:///meld-plain/media/valid/dia0_utt0.mp4",
    }
    assert any("1 clips are not in a folder of a split and are left out" in problem for problem in corpus.problems)


def test_a_folder_above_the_release_tells_no_split(tmp_path: Path) -> None:
    clips = dict.fromkeys(("clips/dia0_utt1.mp4", "train/dia0_utt3.mp4"), "")
    corpus = read_meld(planted(tmp_path / "test", CSVS | clips))
    assert [item.utterance_id for item in corpus.utterances if item.audio] == ["dia0_utt3"]


def test_known_broken_clips_are_named(tmp_path: Path) -> None:
    problems = read_meld(planted(tmp_path, CSVS)).problems
    assert len(BROKEN) == 4
    for split, name in BROKEN:
        assert any(f"{name} of {split}" in problem for problem in problems)
    assert "6 of 6 utterances have no video." in problems


def refused(message: str, folder: str) -> None:
    with pytest.raises(DataError, match=message):
        read_meld(folder)


def test_what_is_not_meld(tmp_path: Path) -> None:
    refused("must be a folder with a corpus, but does not exist or is empty", str(tmp_path / "nowhere"))
    refused("`Utterance`, but has only none", planted(tmp_path / "a", CSVS | {"dev_sent_emo.csv": ""}))


def test_a_csv_is_absent(tmp_path: Path) -> None:
    some = {name: text for name, text in CSVS.items() if "dev" not in name}
    refused("but has no dev_sent_emo.csv. Add the file", planted(tmp_path, some))


def test_two_clips_of_one_name(tmp_path: Path) -> None:
    clips = dict.fromkeys(("train_splits/dia0_utt1.mp4", "train/dia0_utt1.mp4"), "")
    refused(r"must be the only clip dia0_utt1 of train, but .* is another", planted(tmp_path, CSVS | clips))


def test_a_label_of_no_class(tmp_path: Path) -> None:
    wrong = {"dev_sent_emo.csv": CSVS["dev_sent_emo.csv"].replace("fear", "rage")}
    refused(r"must hold a known class, .* but row 0 .* holds 'rage'", planted(tmp_path, CSVS | wrong))


@pytest.mark.shared
def test_all_transcripts_as_published(shared_data: Path) -> None:
    corpus = read_meld(str(shared_data / "meld"))
    assert Counter(item.split for item in corpus.utterances) == {"train": 9989, "dev": 1109, "test": 2610}
    dialogues = {(item.split, item.dialogue_id) for item in corpus.utterances}
    assert Counter(split for split, _ in dialogues) == {"train": 1038, "dev": 114, "test": 280}
    counts = Counter((item.split, item.label) for item in corpus.utterances)
    assert [counts["train", label] for label in corpus.labels] == [4710, 1205, 268, 683, 1743, 271, 1109]
    assert [counts["dev", label] for label in corpus.labels] == [470, 150, 40, 111, 163, 22, 153]
    assert [counts["test", label] for label in corpus.labels] == [1256, 281, 50, 208, 402, 68, 345]
    assert {key for key, item in by_id(corpus).items() if item.notes == (BROKEN_CLIP,)} == BROKEN
    assert all(item.audio is None for item in corpus.utterances)
