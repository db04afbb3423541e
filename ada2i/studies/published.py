"""Scores printed in the paper, for comparison with measured ones.

Source: Nguyen, Le, Mai, Le, "Ada2I: Enhancing Modality Balance for Multimodal Conversational Emotion Recognition",
ACM MM 2024, arXiv 2408.12895, its tables of main results and of ablations. Each is one number without a deviation.
"""

from collections.abc import Mapping

from ada2i.modalities import LETTERS, Modality
from ada2i.records import FeatureInfo, Record

SOURCE = "Nguyen et al., ACM MM 2024, arXiv 2408.12895"


class Published(Record):
    """Printed scores, from 0 to 1; None if the paper prints no score."""

    weighted_f1: float | None = None
    accuracy: float | None = None


class PaperTable(Record):
    """The paper's results on one dataset.

    Attributes:
        classes: Number of classes.
        widths: Widths of the features that it used.
        scores: By letters of the modalities, in the order of ``tav``, and by change: empty, or an ablation.
        remark: Other known facts about these numbers.
    """

    classes: int
    widths: dict[Modality, int]
    scores: dict[tuple[str, str], Published]
    remark: str = ""


def published(dataset: str, features: FeatureInfo) -> PaperTable | None:
    """Return the paper's results for a dataset; None for other classes, and for synthetic data."""
    table = TABLES.get(dataset)
    same = table is not None and table.classes == len(features.labels) and not features.synthetic
    return table if same else None


def printed(table: PaperTable | None, letters: str, change: str) -> Published | None:
    """Return the printed scores of some modalities, unchanged (an empty text) or with an ablation."""
    ordered = "".join(letter for letter in LETTERS if letter in letters)
    return table.scores.get((ordered, change)) if table else None


def other_widths(table: PaperTable, features: FeatureInfo) -> str:
    """Describe which feature widths differ from those in the paper; empty if none differ."""
    differ = [
        f"{modality} {width} wide (paper: {table.widths[modality]})"
        for modality, width in features.widths.items()
        if width != table.widths[modality]
    ]
    return ", ".join(differ)


def _both(weighted_f1: float, accuracy: float) -> Published:
    return Published(weighted_f1=weighted_f1, accuracy=accuracy)


def _ablations(no_afw: float, no_amw: float, no_modulation: float) -> dict[tuple[str, str], Published]:
    named = {"no_afw": no_afw, "no_amw": no_amw, "no_modulation": no_modulation}
    return {("tav", name): Published(weighted_f1=value) for name, value in named.items()}


def _accuracies(tav: float, ta: float, tv: float, av: float) -> dict[tuple[str, str], Published]:
    named = {"tav": tav, "ta": ta, "tv": tv, "av": av}
    return {(letters, ""): Published(accuracy=value) for letters, value in named.items()}


_WIDE: Mapping[Modality, int] = {"text": 768, "audio": 512, "visual": 1024}
_RERUN = "An independent re-run of the released code over 3 seeds (history-only mask) got weighted F1"

TABLES: Mapping[str, PaperTable] = {
    "iemocap": PaperTable(
        classes=6,
        widths=dict(_WIDE),
        scores={
            ("tav", ""): _both(0.6897, 0.6876),
            ("ta", ""): _both(0.6691, 0.6728),
            ("tv", ""): _both(0.6548, 0.6543),
            ("av", ""): _both(0.5516, 0.5564),
            **_ablations(0.6624, 0.6611, 0.6795),
        },
        remark=f"{_RERUN} 0.6552 ± 0.0170.",
    ),
    "meld": PaperTable(
        classes=7,
        widths={"text": 768, "audio": 300, "visual": 342},
        scores={
            ("tav", ""): _both(0.6038, 0.6303),
            ("ta", ""): _both(0.6008, 0.6264),
            ("tv", ""): _both(0.5862, 0.6195),
            **_ablations(0.5965, 0.5887, 0.5813),
        },
        remark=f"{_RERUN} 0.5966 ± 0.0029, with F1 = 0 for fear and disgust. What the paper prints for A+V repeats "
        "IEMOCAP's and is left out.",
    ),
    "mosei-2": PaperTable(classes=2, widths=dict(_WIDE), scores=_accuracies(0.8525, 0.8508, 0.8521, 0.7493)),
    "mosei-7": PaperTable(classes=7, widths=dict(_WIDE), scores=_accuracies(0.4771, 0.4735, 0.4737, 0.3464)),
}
