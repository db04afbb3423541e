"""Decodes sound and pictures from media files, each at its own time, with limits on time and memory.

FFmpeg (PyAV) decodes only what this process has opened; it opens nothing itself, so a playlist cannot make it open
other files or URLs. It decodes with one thread: the same file gives the same numbers on any number of CPUs.

Shape letters in this file:
    S samples     F frames     Y height     X width, pixels
"""

import io
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from ada2i.errors import DataError
from ada2i.extraction.utterance import Half
from ada2i.records import Record

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame

RATE = 16_000  # samples per second of all sound: the rate that speech models expect
OVER_LONG = "over-long"  # a flag: only the first seconds were read
TRUNCATED = "truncated"  # a flag: damaged, or shorter than the file or the corpus declares
MIN_SECONDS = 0.1  # openSMILE's functionals are NaN below it
_SILENCE = 1e-4  # peak below which sound counts as silent: three 16-bit steps
# Seconds decoded before the start: the first frame after a seek is incomplete, and may come after the start.
_PREROLLS = 0.5, 4.0, 16.0
_SLACK = 0.5  # seconds by which a stream may end early, since sound and picture clocks differ
# Seconds: a difference of times below a frame's length, but within these bounds, is rounding.
_ROUNDING = (0.005, 0.1)

# Formats in which recordings may be appended to each other as they are; in others a player stops after the first.
_APPENDABLE = frozenset({"ogg", "mpegts", "mpeg", "matroska,webm", "flac"})

Source: TypeAlias = bytes | Path
Kind: TypeAlias = Literal["audio", "video"]
Code = Literal[
    "missing", "unreadable", "no-audio-stream", "no-video-stream", "zero-length", "too-short", "silent"
]  # fmt: skip


class MediaProblem(DataError):  # noqa: N818 - not a program error: the modality is missing
    """A file has no usable sound or pictures for an utterance.

    Attributes:
        code: What is wrong, as a word that can be counted.
    """

    def __init__(self, message: str, *, code: Code) -> None:
        super().__init__(message, code=code)
        self.code: Code = code


class MediaSettings(Record):
    """The settings that, together with the file, decide samples and pixels."""

    revision: Literal[3] = 3  # of the computation in this file
    limit_s: float = 60.0  # maximum length of an utterance; MELD has two that last 235 and 305 s by mistake
    frames_per_second: float = 4.0
    max_frames: int = 32
    max_side: int = 1280  # pixels; larger pictures are reduced

    @field_validator("revision", mode="before")
    @classmethod
    def _present(cls, revision: object) -> object:
        """Read 1 and 2 as 3: they differ in media with gaps or pictures of several sizes (1), or appended media (2)."""
        return 3 if revision in (1, 2) else revision


_DEFAULTS = MediaSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """Sound of one utterance.

    Attributes:
        samples: ``(S,)`` float32 in [-1, 1], mono, at ``RATE``; never silent, never shorter than ``MIN_SECONDS``.
        flags: ``OVER_LONG``, ``TRUNCATED``, both or none.
    """

    samples: npt.NDArray[np.float32]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Pictures of one utterance.

    Attributes:
        pixels: ``(F, Y, X, 3)`` uint8, red, green, blue; at least one frame.
        flags: ``OVER_LONG``, ``TRUNCATED``, both or none.
    """

    pixels: npt.NDArray[np.uint8]
    flags: tuple[str, ...] = ()


def read_audio(
    source: Source, *, start: float | None = None, end: float | None = None, settings: MediaSettings = _DEFAULTS
) -> Waveform:
    """Decode sound, mix it down to mono and resample it.

    Args:
        source: The file's bytes, or its location.
        start: Seconds from the file's start; None for its start.
        end: Seconds from the file's start; None for its end.
        settings: Limits.

    Raises:
        MediaProblem: There is no usable sound.
    """
    begin = start or 0.0
    wanted = round(_seconds(begin, end, settings) * RATE)
    with _opened(source, "audio") as media:
        samples = _samples(media, begin, wanted + 1)
        expected = media.declared if end is None else end
    over_long = samples.size > wanted and (end is None or end - begin > settings.limit_s)
    short = not over_long and expected is not None and begin + samples.size / RATE < expected - _SLACK
    samples = samples[:wanted]
    _check_sound(samples, begin)
    return Waveform(samples, _flags(over_long=over_long, truncated=short or media.damaged))


def sample_frames(
    source: Source,
    *,
    start: float | None = None,
    end: float | None = None,
    crop: Half | None = None,
    settings: MediaSettings = _DEFAULTS,
) -> Frames:
    """Decode pictures at evenly spaced times.

    Args:
        source: The file's bytes, or its location.
        start: Seconds from the file's start; None for its start.
        end: Seconds from the file's start; None for its end.
        crop: The half of each picture to keep; None for all of it.
        settings: Number and size of pictures, and limits.

    Raises:
        MediaProblem: There are no usable pictures.
    """
    begin = start or 0.0
    longest = _seconds(begin, end, settings)
    with _opened(source, "video") as media:
        length = media.extent.end if media.declared is None or media.appended else media.declared
        seconds = min(longest, length - begin)
        if seconds <= 0:
            raise MediaProblem(
                f"The pictures must begin before their end, {length:.3f} s, but the piece starts at {begin:.3f} s. "
                "Check the times that the corpus gives.",
                code="zero-length",
            )
        count = max(1, min(settings.max_frames, round(seconds * settings.frames_per_second)))
        times = [begin + (i + 0.5) * seconds / count for i in range(count)]
        pixels = [_pixels(frame, crop, settings.max_side) for frame in _shown(media, times)]
    if not pixels:
        raise MediaProblem(
            _unreadable("pictures", f"no frame could be decoded from {begin:.3f} s on"), code="unreadable"
        )
    over_long = (length if end is None else min(end, length)) - begin > settings.limit_s
    short = len(pixels) < count or (end is not None and length < end - _SLACK)
    return Frames(_of_one_size(pixels), _flags(over_long=over_long, truncated=short or media.damaged))


def _seconds(begin: float, end: float | None, settings: MediaSettings) -> float:
    """Return the maximum length of a piece."""
    longest = settings.limit_s if end is None else min(end - begin, settings.limit_s)
    if not (longest > 0 and 0 <= begin < np.inf):  # NaN fails both
        raise MediaProblem(
            f"A piece must begin at 0 s or later and end after its start, but is from {begin} to {end} s. Check "
            "the times that the corpus gives.",
            code="zero-length",
        )
    return longest


def _check_sound(samples: npt.NDArray[np.float32], begin: float) -> None:
    if samples.size == 0:
        raise MediaProblem(
            f"There must be sound from {begin:.3f} s on, but none could be decoded. Check the times that the corpus "
            "gives, and the file with a player.",
            code="zero-length",
        )
    if samples.size < MIN_SECONDS * RATE:
        raise MediaProblem(
            f"Sound must last {MIN_SECONDS} s, but lasts {samples.size / RATE:.3f} s. Check the times that the corpus "
            "gives.",
            code="too-short",
        )
    peak = float(np.abs(samples).max())
    if peak < _SILENCE:
        raise MediaProblem(f"Sound must reach {_SILENCE} of full scale, but its peak is {peak:.1g}.", code="silent")


def _flags(*, over_long: bool, truncated: bool) -> tuple[str, ...]:
    return (OVER_LONG,) * over_long + (TRUNCATED,) * truncated


def _unreadable(what: str, found: str) -> str:
    return f"A media file must hold {what} that FFmpeg decodes, but: {found}. Check it with a player, or leave it out."


class _Media:
    """One stream of an open file; times are seconds from the file's start.

    Attributes:
        declared: The end that the stream declares, or None.
        damaged: Whether anything has failed to decode so far.
    """

    def __init__(
        self, container: "InputContainer", stream: Any, cut: int | None, measure: "Callable[[], _Extent]"
    ) -> None:
        self._container = container
        self._stream = stream
        self._measure = measure
        self._origin = (container.start_time or 0) / 1_000_000
        self._step = float(stream.time_base)
        started = 0.0 if stream.start_time is None else stream.start_time * self._step - self._origin
        self.declared = started + stream.duration * self._step if stream.duration else None
        if cut and stream.codec_context.bit_rate:
            self.declared = started + 8 * cut / stream.codec_context.bit_rate
        self.damaged = False

    @cached_property
    def extent(self) -> "_Extent":
        """Where the stream ends, and whether its times begin anew, found by reading all packets of a second opening."""
        return self._measure()

    @property
    def appended(self) -> bool:
        """Whether the file is several recordings, one behind the other: a seek may land in any of them."""
        return self._container.format.name in _APPENDABLE and self.extent.restarts

    def measured(self) -> "_Extent":
        """Read all packets, without decoding them."""
        clock = _Clock()
        for packet in self._packets():
            if packet.pts is not None:
                begun, shown = (stamp * self._step - self._origin for stamp in (packet.dts or packet.pts, packet.pts))
                clock.time(begun, shown, (packet.duration or 0) * self._step)
        return _Extent(clock.end, clock.restarts)

    def frames(self, begin: float) -> Iterator[tuple[float, Any]]:
        """Yield each frame with its time, from ``begin`` or shortly before; skip frames that cannot be decoded."""
        declared = max(self.declared or 0.0, (self._container.duration or 0) / 1_000_000)
        # Decoders cannot seek to any number, and what is declared may be an estimate.
        seekable = begin > _PREROLLS[0] and begin < declared and not self.appended
        if begin > _PREROLLS[0] and not seekable and not self.appended and self.extent.end <= begin:
            return
        for preroll in _PREROLLS if seekable else ():
            if begin <= preroll:
                break
            self._seek(begin - preroll)
            frames = self._decoded(complete=False)
            if (first := next(frames, None)) is not None and first[0] <= begin:
                yield first
                yield from frames
                return
        if seekable:
            self._seek(0.0)
        yield from self._decoded(complete=True)

    def _decoded(self, *, complete: bool) -> Iterator[tuple[float, Any]]:
        """Yield each frame with its time; in a stream that is not complete, packets before the first one may fail."""
        from av import FFmpegError

        clock = _Clock()
        for packet in self._packets():
            seconds = (packet.duration or 0) * self._step
            try:
                frames = packet.decode()
            except FFmpegError:
                self.damaged = self.damaged or complete
                continue
            for frame in frames:
                if (stamp := frame.dts if frame.pts is None else frame.pts) is not None:
                    complete = True
                    time = stamp * self._step - self._origin
                    yield clock.time(time, time, seconds), frame
                elif complete and (rate := getattr(frame, "sample_rate", 0)):  # sound before an appended recording
                    yield clock.follow(frame.samples / rate), frame

    def _seek(self, time: float) -> None:
        self._container.seek(int((time + self._origin) / self._step), stream=self._stream)

    def _packets(self) -> Iterator[Any]:
        from av import FFmpegError

        try:
            yield from self._container.demux(self._stream)
        except FFmpegError:
            self.damaged = True


class _Clock:
    """The times of a stream; a recording that is appended with times from 0 on continues where the last one ended.

    Attributes:
        end: The end of the last frame so far.
        restarts: Whether a recording was appended so far.
    """

    def __init__(self) -> None:
        self.end = self._late = self._last = 0.0
        self.restarts = False

    def time(self, decoded: float, shown: float, seconds: float) -> float:
        """Return when a frame is shown, from the times in the file at which it is decoded and shown."""
        if decoded + self._late < self._last - _SLACK:
            self._late, self.restarts = self.end - shown, True
        self._last = decoded + self._late
        self.end = max(self.end, shown + self._late + seconds)
        return shown + self._late

    def follow(self, seconds: float) -> float:
        """Return when a frame without a time is shown: behind the one before it."""
        begun, self.end = self.end, self.end + seconds
        return begun


@dataclass(frozen=True, slots=True)
class _Extent:
    """The end of a stream's last packet, in seconds, and whether its times begin anew somewhere."""

    end: float
    restarts: bool


def _measured(source: Source, kind: Kind) -> _Extent:
    """Return the extent of a stream; a file is read once, though many utterances lie in it."""
    if isinstance(source, bytes):
        return _of_bytes(source, kind)
    found = source.stat()
    return _of_file(source, kind, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _of_file(source: Path, kind: Kind, *version: int) -> _Extent:
    del version  # a file of another size or time is another file
    return _read_through(source, kind)


@lru_cache(maxsize=2)  # sound and pictures of the last file, which its caller keeps, too
def _of_bytes(source: bytes, kind: Kind) -> _Extent:
    return _read_through(source, kind)


def _read_through(source: Source, kind: Kind) -> _Extent:
    with _opened(source, kind) as media:
        return media.measured()


@contextmanager
def _opened(source: Source, kind: Kind) -> Iterator[_Media]:
    import av

    what = {"audio": "sound", "video": "pictures"}[kind]
    try:
        with (
            _file(source) as file,
            av.open(
                _Nameless(file), "r", metadata_errors="replace", options={"protocol_whitelist": "none"}
            ) as container,
        ):
            cut = _cut(file) if kind == "audio" else None
            yield _Media(container, _stream(container, kind), cut, partial(_measured, source, kind))
    except MediaProblem:
        raise
    except Exception as problem:  # decoders raise errors of many kinds; each must cost one utterance, not the run
        if isinstance(problem, MemoryError) and not isinstance(problem, av.FFmpegError):
            raise
        found = str(getattr(problem, "strerror", None) or problem or type(problem).__name__)
        raise MediaProblem(_unreadable(what, found), code="unreadable") from problem


class _Nameless:
    """Open a file by its content alone: by its name, FFmpeg would read a .txt file as ANSI art."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _file(source: Source) -> BinaryIO:
    try:
        file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except FileNotFoundError as problem:
        raise MediaProblem(f"{source!s} must be a media file, but does not exist.", code="missing") from problem
    if not file.read(1):
        file.close()
        raise MediaProblem("A media file must have content, but is empty. Get it again.", code="zero-length")
    file.seek(0)
    return file


# By a file's first bytes: where its chunks begin, how a chunk's name and size are packed, and to what it is padded.
_CHUNKS: Mapping[bytes, tuple[int, str, int]] = {
    b"RIFF": (12, "<4sI", 2),
    b"RIFX": (12, ">4sI", 2),
    b"riff": (40, "<16sq", 8),  # W64, whose sizes include name and size
    b"caff": (8, ">4sq", 1),
}


def _cut(file: BinaryIO) -> int | None:
    """Return the bytes of sound that a WAV, W64 or CAF file declares if it holds fewer; FFmpeg believes its length.

    A size of 0, or of the largest numbers, is what a writer puts who does not know the length yet: it declares nothing.
    """
    place, size = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(0)
    first = file.read(4)
    found = next(_sizes_of_sound(file, size, *_CHUNKS[first]), 0) if first in _CHUNKS else 0
    file.seek(place)
    return found or None


def _sizes_of_sound(file: BinaryIO, size: int, place: int, head: str, padding: int) -> Iterator[int]:
    width = struct.calcsize(head)
    while place + width <= size:
        file.seek(place)
        name, length = struct.unpack(head, file.read(width))
        length -= width if head == "<16sq" else 0
        place += width
        if name.startswith(b"data"):
            known = 0 < length < (2**31 - 2**16 if head.endswith("I") else 2**62)
            yield length if known and place + length > size else 0
        if length < 0:
            return
        place += length + -length % padding


def _stream(container: "InputContainer", kind: Kind) -> Any:
    from av.stream import Disposition

    streams: Sequence[Any] = container.streams.audio if kind == "audio" else container.streams.video
    for stream in streams:
        # FFmpeg also lists a song's cover as a video stream.
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic:
            stream.codec_context.thread_count = 1
            return stream
    kinds = ", ".join(s.type for s in container.streams) or "nothing"
    code: Code = "no-audio-stream" if kind == "audio" else "no-video-stream"
    raise MediaProblem(f"A media file must hold a stream of type {kind}, but holds: {kinds}.", code=code)


def _samples(media: _Media, begin: float, size: int) -> npt.NDArray[np.float32]:
    """Return sound from ``begin`` to the end of the stream, but at most ``size`` samples; gaps are silent."""
    sound = _Sound(size)
    for time, frame in media.frames(begin):
        place = (time - begin) * RATE
        if place >= size:  # a gap up to the end
            sound.end = size
        else:
            sound.add(frame, place)
        if sound.end == size:
            break
    sound.finish()
    return sound.samples[: sound.end]


class _Sound:
    """Sound made of frames, each at its own place; frames that follow each other are resampled as one.

    Attributes:
        samples: ``(S,)`` float32, silent where no frame lies.
        end: The end of the last frame so far.
    """

    def __init__(self, size: int) -> None:
        self.samples = np.zeros(size, np.float32)
        self.end = 0
        self._graph: Graph | None = None
        self._format: tuple[Any, ...] = ()  # of the frames that are resampled as one
        self._due = 0.0  # place where the next one of them would begin
        self._next = 0  # place of their next resampled sample

    def add(self, frame: "AudioFrame", place: float) -> None:
        """Add a frame at a place, in samples from the start; it may be negative."""
        format_ = (frame.sample_rate, frame.format.name, frame.layout.name)
        seconds = frame.samples / frame.sample_rate
        least, most = _ROUNDING
        rounding = max(least, min(seconds - 0.002, most)) * RATE
        if self._graph is None or format_ != self._format or abs(place - self._due) >= rounding:
            self.finish()
            self._graph, self._format = _resampler(frame), format_
            self._due, self._next = place, round(place)
        self._graph.push(frame)
        self._put(self._graph)
        self._due += seconds * RATE

    def finish(self) -> None:
        """Add what the resampler still holds."""
        if self._graph is not None:
            self._graph.push(None)
            self._put(self._graph)

    def _put(self, graph: "Graph") -> None:
        for piece in _pulled(graph):
            first, last = max(0, self._next), min(self._next + piece.size, self.samples.size)
            if first < last:
                self.samples[first:last] = piece[first - self._next : last - self._next]
                self.end = max(self.end, last)
            self._next += piece.size


def _resampler(frame: "AudioFrame") -> "Graph":
    from av.filter import Graph

    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=frame.time_base
    )
    # Without a maximum, the sum of the channels is not scaled back to full scale for float samples.
    mono = graph.add("aresample", f"osr={RATE}:osf=flt:ochl=mono:rematrix_maxval=1")
    graph.link_nodes(source, mono, graph.add("abuffersink")).configure()
    return graph


def _pulled(graph: "Graph") -> list[npt.NDArray[np.float32]]:
    pieces: list[npt.NDArray[np.float32]] = []
    while True:
        try:
            frame: Any = graph.pull()
        except (BlockingIOError, EOFError):  # FFmpeg needs more input, or has ended
            return pieces
        pieces.append(frame.to_ndarray()[0])


def _shown(media: _Media, times: list[float]) -> Iterator["VideoFrame"]:
    """Yield the frame that is visible at each time, if there is one: the last one that began before it."""
    waiting = iter(times)
    time, shown, since = next(waiting, None), None, 0.0
    for began, frame in media.frames(times[0]):
        while time is not None and began > time:
            if shown is not None or began <= time + _SLACK:
                yield shown or frame
            time = next(waiting, None)
        if time is None:
            return
        shown, since = frame, began
    while shown is not None and time is not None and time <= since + _SLACK:
        yield shown
        time = next(waiting, None)


def _of_one_size(pictures: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return pictures as one array: each as large as fits into the largest sides, with its edges repeated around it."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    return np.stack([_fitted(picture, height, width) for picture in pictures])


def _fitted(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    from av.video.frame import VideoFrame

    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = [round(side * scale) for side in picture.shape[:2]]
    if size != list(picture.shape[:2]):
        picture = VideoFrame.from_ndarray(picture, "rgb24").reformat(width=size[1], height=size[0]).to_ndarray()  # type: ignore[assignment]
    spare = [(whole - side) for whole, side in zip((height, width), size, strict=True)]
    return np.pad(picture, [*((one // 2, one - one // 2) for one in spare), (0, 0)], mode="edge")


def _pixels(frame: "VideoFrame", crop: Half | None, max_side: int) -> npt.NDArray[np.uint8]:
    from av.video.reformatter import Interpolation

    scale = min(1.0, max_side / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation=Interpolation.AREA)
    upright: npt.NDArray[np.uint8] = np.rot90(small.to_ndarray(), round(frame.rotation / 90))
    middle = upright.shape[1] // 2
    kept = {None: upright, "left": upright[:, :middle], "right": upright[:, middle:]}[crop]
    return np.ascontiguousarray(kept)
