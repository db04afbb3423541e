"""SYNTHETIC dialogues whose utterances have a number: a linear function of their vectors, and noise."""

from typing import Any

import numpy as np
import pandas as pd

WIDTHS = {"text": 12, "audio": 6}


def numbers(*, dialogues: int = 60, length: int = 8, most: float = 3.0, seed: int = 0) -> pd.DataFrame:
    """Return a table with targets from ``-most`` to ``most`` and without labels; some rows lack a vector or a target.

    Args:
        dialogues: Three fifths are train; the rest are dev and test.
        length: Utterances of each dialogue.
        most: Largest absolute target.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for dialogue in range(dialogues):
        split = ("train", "train", "train", "dev", "test")[dialogue % 5]
        for index in range(length):
            text, audio = (random.standard_normal(width).astype(np.float32) for width in WIDTHS.values())
            raw = float(text[:3].sum() + 0.7 * audio[0]) / 2 + 0.4 + 0.2 * random.standard_normal()
            row = {"dialogue_id": f"d{dialogue}", "utterance_index": index, "split": split}
            row |= {"target": float(np.clip(np.round(raw * 5) / 5 * most / 3, -most, most))}
            row |= {"text_feat": text, "audio_feat": None if index % 7 == 5 else audio}
            rows.append(row)
    rows[3]["target"] = None
    return pd.DataFrame(rows)
