from pathlib import Path

import pytest

from ada2i.errors import DataError
from ada2i.extraction.corpora.readers import CORPORA, read_corpus
from ada2i.importers.datasets import DATASETS
from tests.unit.extraction.corpora.trees import planted


def test_every_published_dataset_can_be_read() -> None:
    assert set(CORPORA) == {*DATASETS, "folder"}


def test_a_corpus_by_its_kind(tmp_path: Path) -> None:
    corpus = read_corpus("folder", planted(tmp_path, {"utterances.csv": "dialogue_id,text\na,Hello\n"}))
    assert [item.text for item in corpus.utterances] == ["Hello"]


@pytest.mark.parametrize("kind", CORPORA)
def test_a_place_without_a_corpus(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="must be a folder with a corpus, but does not exist or is empty"):
        read_corpus(kind, str(tmp_path))
    with pytest.raises(DataError, match="must be a path or a URI, but is empty"):
        read_corpus(kind, " ")


def test_an_unknown_kind() -> None:
    with pytest.raises(DataError, match=r"`corpus` must be one of folder, meld, .* but is 'melt'"):
        read_corpus("melt", "anywhere")
