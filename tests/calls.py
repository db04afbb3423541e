"""Twelve made-up phone calls: text and sound, no pictures; as a contact centre records them."""

import csv
from pathlib import Path

import numpy as np

from ada2i.extraction.corpora import voice

TEXTS = {
    "neutral": ("My number is {n}.", "It is the order of day {n}.", "I would like to change address {n}."),
    "anger": ("I have waited {n} days!", "This is the call number {n} about it!", "You charged me {n} times!"),
    "joy": ("That helped {n} times, thank you!", "Wonderful, all {n} have arrived!", "Great, {n} it is!"),
}


def write_calls(folder: Path, *, dialogues: int = 12, turns: int = 6) -> Path:
    """Write the calls as a folder corpus with splits, and return it."""
    (folder / "audio").mkdir(parents=True)
    random = np.random.RandomState(5)
    labels = list(TEXTS)
    with (folder / "utterances.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dialogue_id", "utterance_index", "speaker", "label", "split", "text", "audio"])
        for dialogue in range(dialogues):
            split = "train" if dialogue < dialogues * 2 // 3 else "dev" if dialogue < dialogues * 5 // 6 else "test"
            for turn in range(turns):
                label = labels[(dialogue + turn) % len(labels)]
                manner = voice.MANNERS[label]
                name = f"audio/{dialogue}-{turn}.wav"
                seconds = random.uniform(0.6, 1.0)
                (folder / name).write_bytes(voice.speak(random, manner, pitch=110.0 + 8 * dialogue, seconds=seconds))
                text = TEXTS[label][turn % 3].format(n=10 * dialogue + turn)
                writer.writerow([f"call-{dialogue}", turn, "AB"[turn % 2], label, split, text, name])
    return folder
