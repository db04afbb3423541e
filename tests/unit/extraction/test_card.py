"""The dataset card: YAML that the hub reads, and every number that readers need."""

from pathlib import Path

import pytest
import yaml

from ada2i import storage
from ada2i.data.provenance import licence_warning
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
        "| visual encoder | own-visual: a test | Apache-2.0 |",
        "| CC-BY 4.0 |",
        "| text encoder | own-text: a test | Apache-2.0 |",
        "| text | own-text, revision 1 | 2 | `none` | scale 1.0 |",
        "| train | 2 | 4 | 0 | 2 | 2 |",
        "| audio | 8 | 8 |  |  | first 4800.000 |",
        "tiny-split",
        "revision 3, limit_s 60.0",
    ],
)
def test_what_people_ask_for(card: str, line: str) -> None:
    assert line in card


def test_it_says_nothing_of_where_it_was_made(card: str) -> None:
    assert "extraction/runs" not in card


def test_a_restricted_licence_is_warned_of(tmp_path: Path) -> None:
    talk(tmp_path / "talks", video=False)
    (tmp_path / "talks" / "corpus.json").write_text('{"licence": "for Non-Commercial use"}')
    result = extracted(tmp_path / "talks", tmp_path / "root")
    text = storage.get(storage.join(result.features, CARD)).decode()
    assert "**Restricted use, also of models trained on such vectors. corpus: for Non-Commercial use.**" in text


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        ("audEERING research licence: non-commercial use only", True),
        ("CC-BY-NC-4.0", True),
        ("research only, not to be passed on", True),
        ("noncommercial", True),
        ("Apache-2.0 by its authors; the package states none", False),
        ("CC-BY 4.0", False),
        ("see the model's card", False),
    ],
)
def test_which_licences_restrict(licence: str, *, restricted: bool) -> None:
    assert bool(licence_warning({"audio": licence})) == restricted
