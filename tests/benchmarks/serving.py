"""The endpoint: latency and throughput: ``python -m tests.benchmarks.serving [--seconds 20] [--json FILE]``.

A model with random weights reads texts (MiniLM) and sound (prosody) of made-up calls; one replica with one thread on a
private Ray. Latencies are of one client after the other, warm. Throughput is that of 50 clients in a process of their
own, who send dialogues of texts without a pause, in turns per second, as a share of what encoders and model do with
the same texts without HTTP: both encode every text, with one thread, in the same run.
"""

import argparse
import base64
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ada2i.extraction.corpora import voice
from ada2i.serving.served import answer, load_served
from ada2i.serving.turns import Vectors
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


def alone(root: str, dialogues: list[Turns], seconds: float) -> float:
    """Return the turns per second that encoders and model make without an endpoint, with one thread."""
    served = load_served(root, f"{MODEL}@1", own_code={}, allowed=())
    assert served.encoders is not None
    turns, begun = 0, 0.0
    while not begun or time.perf_counter() - begun < seconds:
        vectors = iter(served.encoders.texts([turn["text"] for dialogue in dialogues for turn in dialogue]))
        given = [
            [Vectors(turn["speaker"], {"text": next(vectors), "audio": None}) for turn in dialogue]
            for dialogue in dialogues
        ]
        answer(served, given)
        if begun:
            turns += sum(map(len, dialogues))
        else:
            begun = time.perf_counter()  # the first round loads and warms everything
    return turns / (time.perf_counter() - begun)


def measure(seconds: float) -> list[Figure]:
    """Measure everything in one run."""
    with tempfile.TemporaryDirectory() as folder:
        calls = Calls(Path(folder))
        dialogues = list(calls.recordings(clips=False).values())
        fresh = multiprocessing.get_context("spawn").Pool
        with fresh(1) as pool:
            bare = pool.apply(alone, (calls.root, dialogues, seconds))
        with server(calls.root, f"{MODEL}@champion") as found:
            turns = [turn for dialogue in dialogues for turn in dialogue][:_ROUNDS]
            text = p95(found, session(found), turns)
            sound = p95(found, "/predict", [{"turns": [{"speaker": "A", "clip": clip()}]}] * _ROUNDS)
            with fresh(1) as pool:
                served = pool.apply(load, (found.url, dialogues, seconds))
    return [
        Figure("endpoint: a text turn of a session, p95", 1000 * text, "ms", 100, at_most=True),
        Figure(f"endpoint: a clip of {_CLIP_SECONDS:g} s, p95", sound, "s", 1, at_most=True),
        Figure(f"endpoint: turns of text, {CLIENTS} clients", served, "turns/s"),
        Figure("endpoint: throughput as a share of encoders and model alone", served / bare, "", 0.8),
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
