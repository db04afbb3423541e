from pathlib import Path

import pytest

from ada2i.errors import DataError
from ada2i.extraction.corpora.iemocap import read_iemocap
from ada2i.extraction.utterance import MISSING_CLIP, Clip
from tests.unit.extraction.corpora.trees import by_id, ends, in_memory, planted

HEAD = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def emotion(start: float, end: float, name: str, label: str) -> str:
    votes = "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
    return f"[{start:.4f} - {end:.4f}]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]\n{votes}"


FILES = {
    "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": HEAD
    + emotion(6.2901, 8.2357, "Ses01F_impro01_F000", "neu")
    + emotion(10.01, 11.3925, "Ses01F_impro01_M001", "exc")
    + emotion(9.5, 10.0, "Ses01F_impro01_F001", "xxx")
    + emotion(8.5, 9.4, "Ses01F_impro01_M000", "hap"),
    "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e1_cat.txt": "not read",
    "Session1/dialog/transcriptions/Ses01F_impro01.txt": "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me: hi.\n"
    "M: [LAUGHTER]\nSes01F_impro01_MXX0 [008.3000-008.4000]: Mm.\nSes01F_impro01_M000 [008.5000-009.4000]: Yes\x92s.\n",
    "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav": "",
    "Session1/sentences/wav/Ses01F_impro01/._Ses01F_impro01_M000.wav": "",
    "Session1/dialog/avi/DivX/Ses01F_impro01.avi": "",
    "Session5/dialog/EmoEvaluation/Ses05M_script01_1b.txt": HEAD + emotion(1, 2, "Ses05M_script01_1b_M003", "fru"),
}


def test_the_release(tmp_path: Path) -> None:
    folder = planted(tmp_path / "IEMOCAP_full_release", FILES, encoding="latin-1")
    corpus = read_iemocap(folder, dataset="iemocap")
    found = by_id(corpus)
    assert [(key, item.utterance_index, item.label, item.speaker, item.text) for key, item in found.items()] == [
        (("test", "Ses05M_script01_1b_M003"), 0, "fru", "M", None),
        (("train", "Ses01F_impro01_F000"), 0, "neu", "F", "Excuse me: hi."),
        (("train", "Ses01F_impro01_M000"), 1, "hap", "M", "Yes\u2019s."),
        (("train", "Ses01F_impro01_M001"), 2, "exc", "M", None),
    ]
    first, second = found["train", "Ses01F_impro01_F000"], found["train", "Ses01F_impro01_M000"]
    assert first.audio is not None
    assert ends(first.audio.uri) == "Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert (first.audio.start, first.audio.crop, first.notes) == (None, None, ())
    assert (second.audio, second.notes) == (None, (MISSING_CLIP,))
    assert found["test", "Ses05M_script01_1b_M003"].video is None
    assert corpus.problems[:2] == (
        "1 utterance with other emotions, or no agreement (xxx), left out: xxx 1.",
        "Of the five sessions, 2, 3, 4 are absent.",
    )


def test_who_wears_the_markers_is_on_the_left() -> None:
    corpus = read_iemocap(in_memory("iemocap", FILES), dataset="iemocap")
    found = by_id(corpus)
    avi = "memory:///iemocap/Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    assert found["train", "Ses01F_impro01_F000"].video == Clip(avi, 6.2901, 8.2357, "left")
    assert found["train", "Ses01F_impro01_M000"].video == Clip(avi, 8.5, 9.4, "right")


def test_four_classes_leave_excitement_out(tmp_path: Path) -> None:
    corpus = read_iemocap(planted(tmp_path, FILES), dataset="iemocap-4")
    assert [item.label for item in corpus.utterances] == ["neu", "hap"]
    assert [item.utterance_index for item in corpus.utterances] == [0, 1]
    assert corpus.labels == ("hap", "sad", "neu", "ang")
    assert "left out: exc 1, fru 1, xxx 1." in corpus.problems[0]


def refused(message: str, folder: str) -> None:
    with pytest.raises(DataError, match=message):
        read_iemocap(folder, dataset="iemocap")


def test_what_is_not_iemocap(tmp_path: Path) -> None:
    refused("but holds no such file. Name the folder IEMOCAP_full_release", planted(tmp_path / "a", {"x.txt": ""}))
    place = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    refused(
        r"Line 2 of .*Ses01F_impro01.txt must be like .* but is '\[6.2 - oops\]",
        planted(tmp_path / "b", {place: "% x\n[6.2 - oops]\tSes01F_impro01_F000\tneu\t[2]\n"}),
    )
    for number, times in enumerate(("6.2.9 - 8.2", ". - 8.2", "6.2 - 8.")):
        text = f"% x\n[{times}]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]\n"
        refused(r"Line 2 of .* must be like .* but is '\[", planted(tmp_path / f"d{number}", {place: text}))
    refused("must hold utterances of IEMOCAP, 6 emotions, but none", planted(tmp_path / "c", {place: HEAD}))
