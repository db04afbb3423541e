"""The endpoint: latency and throughput: ``python -m tests.benchmarks.serving [--seconds 20] [--json FILE]``.

A model with random weights reads texts (MiniLM) and sound (prosody) of made-up calls; one replica with one thread on a
private Ray. Latencies are of one client after the other, warm. Throughput is that of 50 clients in a process of their
own, who send dialogues of texts without a pause, in turns per second, as a share of what ``ada2i predict --local``
does with such texts in the same run, its start apart. Both encode every text, with one thread.
"""

import argparse
import base64
import csv
import itertools
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ada2i.extraction.corpora import voice
from tests.benchmarks.workload import Figure, finish
from tests.served import MODEL, Calls
from tests.serving import Server, server

CLIENTS = 50
_CLIP_SECONDS = 5.0
_ROUNDS = 40
_WARM_SECONDS = 3.0

Turns = list[dict[str, Any]]


def p95(found: Server, path: str, bodies: Sequence[Any]) -> float:
    """Return the 95th percentile of a request's time, in seconds."""
    times = []
    with found.client() as client:
        for place, body in enumerate([*bodies[:5], *bodies]):
            begun = time.perf_counter()
            client.post(path, json=body).raise_for_status()
            if place >= 5:
                times.append(time.perf_counter() - begun)
    return float(np.quantile(times, 0.95))


def session(found: Server) -> str:
    """Open a session and return the path of its turns."""
    with found.client() as client:
        return f"/sessions/{client.post('/sessions').json()['session']}/turns"


def clip() -> str:
    """Return five seconds of a made-up voice, in base64."""
    sound = voice.speak(np.random.RandomState(1), voice.MANNERS["joy"], pitch=120.0, seconds=_CLIP_SECONDS)
    return base64.b64encode(sound).decode()


def load(url: str, dialogues: list[Turns], seconds: float) -> float:
    """Return the turns per second that many clients get."""
    found, stop, counted = Server(url, None), threading.Event(), threading.Event()  # type: ignore[arg-type]

    def talk(number: int) -> int:
        turns = 0
        with found.client() as client:
            for place in range(number, 1 << 30):
                body = {"turns": dialogues[place % len(dialogues)]}
                client.post("/predict", json=body).raise_for_status()
                turns += len(body["turns"]) * (counted.is_set() and not stop.is_set())
                if stop.is_set():
                    return turns
        return turns

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(talk, number) for number in range(CLIENTS)]
        time.sleep(_WARM_SECONDS)
        counted.set()
        begun = time.perf_counter()
        time.sleep(seconds)
        stop.set()
        passed = time.perf_counter() - begun
        return sum(each.result() for each in running) / passed


def write_texts(folder: Path, dialogues: list[Turns], rounds: int, sound: bytes) -> Path:
    """Write each round's dialogues as a folder corpus, with new texts and one clip; return it."""
    folder.mkdir()
    (folder / "clip.wav").write_bytes(sound)
    with (folder / "utterances.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dialogue_id", "utterance_index", "speaker", "text", "audio"])
        clips = itertools.chain(["clip.wav"], itertools.repeat(""))
        for number, (place, dialogue) in itertools.product(range(rounds), enumerate(dialogues)):
            for index, turn in enumerate(dialogue):
                text = f"{turn['text']} {folder.name} {number}"
                writer.writerow([f"{number}-{place}", index, turn["speaker"], text, next(clips)])
    return folder


def predicted(root: str, folder: Path, dialogues: list[Turns], rounds: int) -> float:
    """Return the turns per second of ``ada2i predict`` by the time that the rounds take beyond one of them alone."""
    sound, seconds = base64.b64decode(clip()), []
    for number in (1, 1 + rounds):
        corpus = write_texts(folder / f"texts{number}", dialogues, number, sound)
        command = ["predict", f"{MODEL}@1", f"corpus:folder:{corpus}", "--local", "--root", root]
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ada2i", *command], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begun)
    return rounds * sum(map(len, dialogues)) / (seconds[1] - seconds[0])


def measure(seconds: float) -> list[Figure]:
    """Measure everything in one run."""
    with tempfile.TemporaryDirectory() as folder:
        calls = Calls(Path(folder))
        dialogues = list(calls.recordings(clips=False).values())
        bare = predicted(calls.root, Path(folder), dialogues, _ROUNDS)
        with server(calls.root, f"{MODEL}@champion") as found:
            turns = [turn for dialogue in dialogues for turn in dialogue][:_ROUNDS]
            text = p95(found, session(found), turns)
            sound = p95(found, "/predict", [{"turns": [{"speaker": "A", "clip": clip()}]}] * _ROUNDS)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                served = pool.apply(load, (found.url, dialogues, seconds))
    return [
        Figure("endpoint: a text turn of a session, p95", 1000 * text, "ms", 100, at_most=True),
        Figure(f"endpoint: a clip of {_CLIP_SECONDS:g} s, p95", sound, "s", 1, at_most=True),
        Figure(f"endpoint: turns of text, {CLIENTS} clients", served, "turns/s"),
        Figure("endpoint: turns of text, `ada2i predict`", bare, "turns/s"),
        Figure("endpoint: throughput as a share of `ada2i predict`", served / bare, "", 0.8),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    finish(given.json, measure(given.seconds))


if __name__ == "__main__":
    main()
