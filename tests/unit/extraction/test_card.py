"""The dataset card: YAML that the hub reads, and every number that readers need."""

import pytest
import yaml

from ada2i import storage
from ada2i.extraction.publish import CARD
from tests.unit.extraction.talks import extracted, talk


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("card")
    talk(folder / "talks")
    (folder / "talks" / "corpus.json").write_text('{"licence": "CC-BY 4.0", "synthetic": true}')
    result = extracted(folder / "talks", folder / "root")
    return storage.get(storage.join(result.features, CARD)).decode()


def test_front_matter(card: str) -> None:
    facts = yaml.safe_load(card.split("---\n")[1])
    assert facts["size_categories"] == ["n<1K"]
    assert "synthetic" in facts["tags"]
    (config,) = facts["configs"]
    assert [(entry["split"], entry["path"]) for entry in config["data_files"]] == [
        ("dev", ["part-00000.parquet"]),
        ("test", ["part-00001.parquet"]),
        ("train", ["part-00002.parquet"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "**SYNTHETIC data",
        "| visual encoder | a test | Apache-2.0 |",
        "| CC-BY 4.0 |",
        "| text | own-text, revision 1 | 2 | `none` | scale 1.0 |",
        "| train | 2 | 4 | 0 | 2 | 2 |",
        "| audio | 8 | 8 |  |  | first 4800.000 |",
        "tiny-split",
        "revision 1, limit_s 60.0",
    ],
)
def test_what_people_ask_for(card: str, line: str) -> None:
    assert line in card


def test_it_says_nothing_of_where_it_was_made(card: str) -> None:
    assert "extraction/runs" not in card
