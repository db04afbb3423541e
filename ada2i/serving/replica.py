"""The model replica: it answers in batches, and takes over a new champion between two batches.

A replica looks at the alias every few seconds. It loads a new version while the current one answers, and then answers
with it; sessions that began with an older version are answered by that one until they end.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ada2i.errors import Ada2iError, DataError
from ada2i.inference.sums import Floats
from ada2i.registry.references import resolve
from ada2i.serving import encoding
from ada2i.serving.batches import Batches
from ada2i.serving.live import Context, follow
from ada2i.serving.request import ServeSpec
from ada2i.serving.served import Answer, Served, answer, load_served
from ada2i.serving.turns import Turn, Vectors, read_features
from ada2i.serving.windows import Windows

log = logging.getLogger(__name__)

_BATCH = 32  # requests; more wait for the next batch
_KEPT = 3  # versions in memory: the current one, and older ones of live sessions
_DECODERS = 2  # processes that decode clips at the same time


@dataclass(frozen=True)
class Asked:
    """A request to the model.

    Attributes:
        turns: The turns to answer: a dialogue, or the next turn of a session.
        live: Whether it is a session's turn.
        context: What the session keeps; None: it has no turns yet.
    """

    turns: tuple[Turn, ...]
    live: bool = False
    context: Context | None = None


@dataclass(frozen=True)
class Answered:
    """The answer to a request.

    Attributes:
        version: Name of the version that answered.
        answers: By turn.
        batch: Requests that were answered together.
        context: What the session keeps from now on; None for a dialogue.
    """

    version: str
    answers: list[Answer]
    batch: int
    context: Context | None = None


@dataclass(frozen=True)
class Description:
    """What a version takes.

    Attributes:
        version: Its name.
        widths: Width of the vectors that it reads, by modality.
        text: Whether it takes texts.
        clips: The modalities that it extracts from clips.
        windows: What became of the replica's drift windows since the last call; see ``Windows.results``.
    """

    version: str
    widths: dict[str, int]
    text: bool
    clips: tuple[str, ...]
    windows: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Work:
    """A request whose clips are decoded: by turn, the text that is still to be encoded, and the other vectors."""

    served: Served
    turns: list[tuple[str | None, Vectors]]
    asked: Asked


class Replica:
    """Answers with one thread, one batch after the other."""

    def __init__(self, spec: ServeSpec, root: str) -> None:
        self._spec, self._root = spec, root
        self._batches = Batches(self._answers, most=_BATCH)
        self._thread = ThreadPoolExecutor(1)  # of clips, so that texts do not wait for them
        self._decoders = asyncio.Semaphore(_DECODERS)
        self._current = self._load(spec.version, None)
        self._held = {self._current.version.number: self._current}
        self._windows = Windows(root, self._current.version.model, spec.drift_window) if spec.counts else None
        self._poll: asyncio.Task[None] | None = None

    async def describe(self) -> Description:
        """Return what the current version takes."""
        self._watch()
        served, encoders = self._current, self._current.encoders
        text, clips = (encoders.reads_text, encoders.of_clips) if encoders else (False, ())
        widths = {str(m): w for m, w in served.widths.items()}
        results = self._windows.results() if self._windows else {}
        return Description(served.version.name, widths, text, clips, results)

    async def ask(self, asked: Asked) -> Answered | Ada2iError:
        """Answer a request; an error of this package is returned, since Ray would log what is raised."""
        self._watch()
        try:
            served = await self._served(asked.context)
            work = _Work(served, [await self._read(served, turn, n) for n, turn in enumerate(asked.turns)], asked)
            found = await self._batches.result(work)
        except Ada2iError as problem:
            return problem
        except Exception as problem:  # noqa: BLE001 - its message may hold what a client sent
            log.error("A request failed with %s.", type(problem).__name__)  # noqa: TRY400 - so does its traceback
            return Ada2iError(f"The server failed with {type(problem).__name__}. Report it with the request.")
        return found

    async def count(self, number: int, sums: Floats) -> None:
        """Count the dialogue of a session that ended, by its version and its sums ``(K,)``."""
        if self._windows:
            self._windows.add(number, [sums])

    def __del__(self) -> None:
        """Write the open windows; Ray Serve calls it when it ends a replica, and waits for it."""
        if windows := getattr(self, "_windows", None):
            windows.end()

    async def _read(self, served: Served, turn: Turn, number: int) -> tuple[str | None, Vectors]:
        """Return a turn's vectors, and its text if that is still to be encoded."""
        place = f"turns.{number}"
        if turn.features is not None:
            features = read_features(turn.features, served.widths, served.version.name, place)
            return None, Vectors(turn.speaker, features)
        encoders = _encoders(served, turn, place)
        found = {}
        if turn.clip is not None:
            async with self._decoders:
                decoded = await encoding.decode(turn.clip, encoders, self._spec.limits, f"{place}.clip")
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._thread, encoders.clip, decoded, f"{place}.clip")
        return turn.text, Vectors(turn.speaker, {modality: found.get(modality) for modality in served.widths})

    async def _served(self, context: Context | None) -> Served:
        """Return the version for a request: that of its session, else the current one."""
        if context is None:
            return self._current
        if context.number not in self._held:
            name = f"{self._current.version.model}@{context.number}"
            self._hold(await asyncio.to_thread(self._load, name, self._current))
        return self._held[context.number]

    def _answers(self, batch: Sequence[_Work]) -> list[Answered | Ada2iError]:
        return _answers(batch, self._windows)

    def _load(self, reference: str, like: Served | None) -> Served:
        spec = self._spec
        return load_served(
            self._root,
            reference,
            own_code=spec.code,
            allowed=spec.allow_encoders,
            like=like,
            least=spec.min_confidence,
        )

    def _hold(self, served: Served) -> None:
        self._held[served.version.number] = served
        others = [number for number in self._held if number not in (served.version.number, self._number)]
        for number in others[: max(0, len(self._held) - _KEPT)]:
            del self._held[number]

    @property
    def _number(self) -> int:
        return self._current.version.number

    def _watch(self) -> None:
        """Look at alias and windows from the first request on; a task needs the running loop of requests."""
        if self._poll is None:
            self._poll = asyncio.get_running_loop().create_task(self._repeat())

    async def _repeat(self) -> None:
        moves = "/" not in self._spec.version and not self._spec.version.partition("@")[2].isdecimal()
        while True:
            await asyncio.sleep(self._spec.poll_seconds)
            if self._windows:
                self._windows.close_old()
            try:
                if moves:
                    await self._follow_alias()
            except Exception as problem:  # noqa: BLE001  # of the model's own code, for example; the next round tries again
                log.warning("%s still answers: %s", self._current.version.name, type(problem).__name__)

    async def _follow_alias(self) -> None:
        try:
            number = (await asyncio.to_thread(resolve, self._root, self._spec.version)).number
            if number == self._number:
                return
            name = f"{self._current.version.model}@{number}"
            new = await asyncio.to_thread(self._load, name, self._current)
        except Ada2iError as problem:
            log.warning("%s still answers: %s", self._current.version.name, problem.message)
            return
        # Requests that wait for a batch keep the version that they were read for; later ones get this one.
        self._current = new
        self._hold(new)
        if self._windows:
            self._windows.close()
        log.info("%s answers from now on.", new.version.name)


def _encoders(served: Served, turn: Turn, place: str) -> encoding.Encoders:
    """Return the encoders for a turn of text, clip or both.

    Raises:
        DataError: The version has none for its content.
    """
    encoders = served.encoders
    name = served.version.name
    if encoders is None:
        raise DataError(
            f"`{place}` must have `features`, since {name} was trained on imported features, whose encoders are "
            "unknown, but has not. Send the vectors.",
            field=place,
        )
    for what, given, known in (("text", turn.text, encoders.reads_text), ("clip", turn.clip, bool(encoders.of_clips))):
        if given is not None and not known:
            raise DataError(
                f"`{place}.{what}` must be absent, since {name} does not read it. Leave it out.", field=place
            )
    return encoders


def _answers(batch: Sequence[_Work], windows: Windows | None) -> list[Answered | Ada2iError]:
    """Answer a batch; requests for different versions are predicted separately."""
    found: dict[int, Answered | Ada2iError] = {}
    for number in {work.served.version.number for work in batch}:
        places = [place for place, work in enumerate(batch) if work.served.version.number == number]
        try:
            answered = _of_version([batch[place] for place in places], windows)
        except Ada2iError as problem:  # of one request: the others are answered without it
            alone = len(places) == 1
            found |= {place: problem if alone else _answers([batch[place]], windows)[0] for place in places}
        else:
            found |= {place: replace(one, batch=len(batch)) for place, one in zip(places, answered, strict=True)}
    return [found[place] for place in range(len(batch))]


def _of_version(batch: Sequence[_Work], windows: Windows | None) -> list[Answered]:
    served, sums = batch[0].served, list[Floats]()
    number = served.version.number
    texts = [text for work in batch for text, _ in work.turns if text is not None]
    vectors = iter(served.encoders.texts(texts) if texts and served.encoders else [])
    turns = [[_with_text(one, text, vectors) for text, one in work.turns] for work in batch]
    name = served.version.name
    whole = [place for place, work in enumerate(batch) if not work.asked.live]
    live = [place for place, work in enumerate(batch) if work.asked.live]
    found: dict[int, Answered] = {}
    if whole:
        count = sums.extend if windows and windows.wants(number) else None
        answers = answer(served, [turns[place] for place in whole], count)
        found |= {place: Answered(name, rows, 0) for place, rows in zip(whole, answers, strict=True)}
    if live:
        contexts = [batch[place].asked.context or Context(number) for place in live]
        given = [(context, turns[place][0]) for context, place in zip(contexts, live, strict=True)]
        followed = follow(served, given, counted=windows is not None)
        found |= {place: Answered(name, [row], 0, after) for place, (after, row) in zip(live, followed, strict=True)}
    if windows and sums:  # last: after an error, the requests are answered again one by one
        windows.add(number, sums)
    return [found[place] for place in range(len(batch))]


def _with_text(turn: Vectors, text: str | None, vectors: Any) -> Vectors:
    return turn if text is None else replace(turn, features={**turn.features, "text": next(vectors)})
