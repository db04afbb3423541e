"""Files are made here, small, so what must come out of them is known; what is broken is refused by a word."""

import io
import pickle
import struct
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
import numpy.typing as npt
import pytest

from ada2i.extraction import media
from ada2i.extraction.media import (
    OVER_LONG,
    RATE,
    TRUNCATED,
    MediaProblem,
    MediaSettings,
    read_audio,
    sample_frames,
)

FPS = 10
SIZE = (96, 64)  # width, height


def wav(samples: npt.NDArray[Any], rate: int = RATE) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> npt.NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def sound(seconds: float, *, format: str, codec: str, layout: str, rate: int = 44_100) -> bytes:
    """Return a file with the same tone in every channel."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout=layout)
        samples = tone(seconds, rate).astype(np.float32)
        for first in range(0, samples.size, 1024):
            channels = [samples[first : first + 1024]] * stream.codec_context.channels
            frame = av.AudioFrame.from_ndarray(np.stack(channels), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, first
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def film(count: int, *, format: str = "mp4", codec: str = "libx264", **options: str) -> bytes:
    """Return pictures that grow brighter by 5 of 255 each, darker on the left half than on the right."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as out:
        stream: Any = out.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for i in range(count):
            picture = np.full((SIZE[1], SIZE[0], 3), 5 * i, np.uint8)
            picture[:, SIZE[0] // 2 :] += 100
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def numbers(pixels: npt.NDArray[np.uint8]) -> list[int]:
    """Return which of the film's pictures these are."""
    return [round(float(p[:, : p.shape[1] // 2 - 4].mean()) / 5) for p in pixels]


def refused(read: Any, source: bytes | Path, code: str, message: str, **arguments: Any) -> None:
    with pytest.raises(MediaProblem, match=message) as caught:
        read(source, **arguments)
    assert caught.value.code == code
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.code, again.message, again.context) == (code, caught.value.message, {"code": code})


def test_sound_at_its_own_rate_comes_out_bit_for_bit(tmp_path: Path) -> None:
    data = wav(tone(1.0))
    expected = np.frombuffer(data[44:], "<i2").astype(np.float32) / 32768
    got = read_audio(data)
    assert got.samples.dtype == np.float32
    assert got.flags == ()
    np.testing.assert_array_equal(got.samples, expected)
    (tmp_path / "a.wav").write_bytes(data)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, expected)


def test_a_piece_of_sound_is_exact_to_the_sample() -> None:
    data = wav(np.linspace(-0.9, 0.9, 5 * RATE))
    whole = read_audio(data).samples
    piece = read_audio(data, start=2.0005, end=3.25).samples
    np.testing.assert_array_equal(piece, whole[round(2.0005 * RATE) :][: piece.size])
    assert piece.size == round(1.2495 * RATE)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize(("format", "codec"), [("mp4", "aac"), ("matroska", "ac3")])
def test_any_layout_and_rate_comes_out_mono_at_its_level(layout: str, format: str, codec: str) -> None:
    samples = read_audio(sound(1.0, format=format, codec=codec, layout=layout)).samples
    assert samples.size == pytest.approx(RATE, abs=0.1 * RATE)
    middle = samples[RATE // 4 : 3 * RATE // 4]
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() * RATE / middle.size == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)


def test_over_long_sound_is_cut_and_flagged() -> None:
    settings = MediaSettings(limit_s=1.0)
    got = read_audio(wav(tone(2.0)), settings=settings)
    assert (got.samples.size, got.flags) == (RATE, (OVER_LONG,))
    assert read_audio(wav(tone(1.0)), settings=settings).flags == ()
    assert read_audio(wav(tone(2.0)), end=1.0, settings=settings).flags == ()


def test_sound_that_ends_before_its_time_is_flagged() -> None:
    assert read_audio(wav(tone(2.0)), start=1.0, end=4.0).flags == (TRUNCATED,)
    assert read_audio(wav(tone(2.0)), start=1.0, end=2.2).flags == ()  # clocks differ a little


def test_what_gives_no_sound_is_refused(tmp_path: Path) -> None:
    good = wav(tone(1.0))
    refused(read_audio, b"", "zero-length", "is empty")
    refused(read_audio, b"not a media file" * 50, "unreadable", "Invalid data")
    refused(read_audio, sound(1.0, format="mp4", codec="aac", layout="mono")[:500], "unreadable", "Invalid data")
    refused(read_audio, film(3), "no-audio-stream", "type audio, but holds: video")
    refused(read_audio, good, "zero-length", "from 3.000 s on", start=3.0)
    refused(read_audio, good, "zero-length", "end after its start", start=0.5, end=0.5)
    refused(read_audio, good, "zero-length", "begin at 0 s or later", start=-1.0)
    refused(read_audio, good, "too-short", "lasts 0.050 s", end=0.05)
    refused(read_audio, wav(np.zeros(RATE)), "silent", "its peak is 0")
    refused(read_audio, wav(np.zeros(0)), "zero-length", "none could be decoded")
    refused(read_audio, tmp_path / "gone.wav", "missing", "does not exist")
    (tmp_path / "art.txt").write_text("letters that FFmpeg would paint")
    refused(sample_frames, tmp_path / "art.txt", "unreadable", "Invalid data")


def test_a_playlist_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.mp4").write_bytes(film(3))
    monkeypatch.chdir(tmp_path)
    refused(sample_frames, b"ffconcat version 1.0\nfile secret.mp4\n", "unreadable", "Invalid")


@pytest.mark.parametrize(("format", "codec"), [("mp4", "libx264"), ("avi", "mpeg4"), ("matroska", "libx264")])
def test_frames_are_those_to_be_seen_at_even_times(format: str, codec: str) -> None:
    film_ = film(20, format=format, codec=codec)
    got = sample_frames(film_)
    assert got.pixels.shape == (8, SIZE[1], SIZE[0], 3)
    assert got.flags == ()
    # Two seconds, four frames each: at 0.125, 0.375... s, where 10 pictures are shown a second.
    assert numbers(got.pixels) == [1, 3, 6, 8, 11, 13, 16, 18]
    np.testing.assert_array_equal(sample_frames(film_).pixels, got.pixels)


def test_frames_of_a_piece_come_from_it_alone() -> None:
    got = sample_frames(film(30, g="30"), start=1.0, end=2.0)
    assert numbers(got.pixels) == [11, 13, 16, 18]
    assert sample_frames(film(30), start=2.0, end=8.0).flags == (TRUNCATED,)


def test_the_number_of_frames_is_bounded() -> None:
    settings = MediaSettings(max_frames=3, limit_s=2.0)
    got = sample_frames(film(30), settings=settings)
    assert (len(got.pixels), got.flags) == (3, (OVER_LONG,))
    assert numbers(got.pixels) == [3, 10, 16]
    assert len(sample_frames(film(1)).pixels) == 1


def test_halves_and_large_pictures() -> None:
    left = sample_frames(film(10), crop="left", end=0.2)
    right = sample_frames(film(10), crop="right", end=0.2)
    assert left.pixels.shape[1:] == right.pixels.shape[1:] == (SIZE[1], SIZE[0] // 2, 3)
    assert right.pixels.mean() - left.pixels.mean() == pytest.approx(100, abs=5)
    small = sample_frames(film(10), settings=MediaSettings(max_side=48))
    assert small.pixels.shape[1:] == (32, 48, 3)


def test_a_phone_held_upright_gives_upright_pictures() -> None:
    data = film(3)
    one, turned = (1).to_bytes(2, "big") + bytes(2), (0xFFFF0000).to_bytes(4, "big")
    place = data.index(one + bytes(12) + one, data.index(b"tkhd"))  # the matrix's first two rows
    rotated = data[:place] + bytes(4) + one + bytes(4) + turned + bytes(4) + data[place + 20 :]
    upright = sample_frames(rotated).pixels
    assert upright.shape[1:] == (SIZE[0], SIZE[1], 3)
    # A quarter to the right: what was left is above.
    assert upright[0, : SIZE[0] // 2 - 4].mean() < upright[0, SIZE[0] // 2 + 4 :].mean() - 50


def test_what_gives_no_pictures_is_refused() -> None:
    refused(sample_frames, wav(tone(1.0)), "no-video-stream", "type video, but holds: audio")
    refused(sample_frames, film(10), "zero-length", "begin before their end, 1.000 s", start=5.0)
    refused(sample_frames, film(10)[:300], "unreadable", "Invalid data")


def test_half_a_film_gives_half_its_frames() -> None:
    data = film(40, format="avi", codec="mpeg4")
    got = sample_frames(data[: len(data) // 2])
    assert 0 < len(got.pixels) < 16


def test_damage_never_raises_anything_else() -> None:
    random = np.random.default_rng(0)
    sources = [film(20), film(20, format="avi", codec="mpeg4"), sound(0.5, format="mp4", codec="aac", layout="mono")]
    outcomes = set()
    for turn in range(60):
        damaged = bytearray(sources[turn % 3])
        for place in random.integers(0, len(damaged), 1 + turn):
            damaged[place] = random.integers(256)
        for read in (read_audio, sample_frames):
            try:
                outcomes.add(getattr(read(bytes(damaged)), "flags", None))
            except MediaProblem as problem:
                outcomes.add(problem.code)
    assert {(), "unreadable"} < outcomes


# --- sound at its own time ---

Part = tuple[float, float, float]  # start and length in seconds, and Hz


def parts(parts: Sequence[Part], *, format: str, codec: str, pictures: float = 0.0, begin: float = 0.0) -> bytes:
    """Return a file with tones at their own times, each encoded by itself, and pictures from some time on."""
    rate = 48_000
    file = io.BytesIO()
    with av.open(file, "w", format=format) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout="mono")
        seen: Any = out.add_stream("mpeg2video", rate=FPS) if pictures else None
        packets = [packet for part in parts for packet in tone_packets(part, codec, rate, stream)]
        if seen is not None:
            seen.width, seen.height, seen.pix_fmt = *SIZE, "yuv420p"
            for number in range(round(pictures * FPS)):
                frame = av.VideoFrame.from_ndarray(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8), format="rgb24")
                frame.pts = number + round(begin * FPS)
                packets += seen.encode(frame)
            packets += seen.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return file.getvalue()


def tone_packets(part: Part, codec: str, rate: int, stream: Any) -> list[Any]:
    start, seconds, hertz = part
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", stream.codec_context.format
    encoder.time_base = Fraction(1, rate)
    encoder.open()
    convert = av.AudioResampler(format=encoder.format, layout="mono", rate=rate)
    size = encoder.frame_size or rate // 10
    samples = tone(seconds, rate, hertz).astype(np.float32)
    samples = np.pad(samples, (0, -samples.size % size))
    packets = []
    for first in range(0, samples.size, size):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + size], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first + round(start * rate), Fraction(1, rate)
        packets += [packet for ready in convert.resample(frame) for packet in encoder.encode(ready)]
    packets += encoder.encode(None)
    for packet in packets:
        packet.stream, packet.time_base = stream, Fraction(1, rate)
    return packets


def heard(data: bytes, start: float | None = None, end: float | None = None) -> list[int]:
    """Return what is heard in each quarter of a second, without its borders: Hz in tens, 0 for silence."""
    found = read_audio(data, start=start, end=end)
    assert found.flags == ()
    pieces = (found.samples[first + 500 : first + 3500] for first in range(0, found.samples.size - 3499, 4000))
    return [
        0 if np.abs(p).max() < 0.01 else round(np.abs(np.fft.rfft(p)).argmax() * RATE / p.size / 10) for p in pieces
    ]


KINDS = [("matroska", "pcm_s16le"), ("mp4", "aac"), ("mpegts", "mp2"), ("webm", "libopus"), ("matroska", "flac")]


@pytest.mark.parametrize(("format", "codec"), KINDS)
def test_a_gap_is_silence(format: str, codec: str) -> None:
    data = parts([(0, 1, 220), (2, 1, 880)], format=format, codec=codec)
    assert heard(data) == [22] * 4 + [0] * 4 + [88] * 4
    assert heard(data, 0.5, 2.5) == [22] * 2 + [0] * 4 + [88] * 2
    assert heard(data, 2.0, 3.0) == heard(data, 2.0) == [88] * 4
    refused(read_audio, data, "silent", "its peak is 0", start=1.2, end=1.9)


@pytest.mark.parametrize(("format", "codec"), KINDS[:3])
def test_sound_that_begins_late_is_late(format: str, codec: str) -> None:
    data = parts([(1.5, 1, 880)], format=format, codec=codec, pictures=3.0)
    assert heard(data)[:10] == [0] * 6 + [88] * 4
    assert heard(data, 1.0, 2.0) == [0] * 2 + [88] * 2
    refused(read_audio, data, "silent", "its peak is 0", end=1.0)


def test_a_lost_packet_is_a_gap_and_moves_nothing() -> None:
    whole = parts([(0, 1, 440)], format="matroska", codec="pcm_s16le")
    ends = [(0.1 * n, 0.1, 440.0) for n in range(10) if n != 4]
    holed = read_audio(parts(ends, format="matroska", codec="pcm_s16le")).samples
    assert np.abs(holed[round(0.401 * RATE) : round(0.499 * RATE)]).max() < 1e-3
    assert holed.size == read_audio(whole).samples.size


def test_sounds_that_overlap_lie_at_their_times() -> None:
    data = parts([(0, 1, 220)], format="matroska", codec="pcm_s16le")
    assert heard(data) == [22] * 4
    data = parts([(0, 0.1, 220), (0.05, 0.1, 880), (1, 1, 880)], format="matroska", codec="pcm_s16le")
    assert heard(data)[1:] == [0] * 3 + [88] * 4


APPENDED = [("mpegts", "mp2"), ("mpeg", "mp2"), ("ogg", "libopus"), ("ogg", "flac"), ("flac", "flac")]


@pytest.mark.parametrize(("format", "codec"), APPENDED)
def test_an_appended_recording_whose_times_begin_anew_goes_on(format: str, codec: str) -> None:
    tones = ((1, 220), (4, 440), (2, 880))
    data = b"".join(parts([(0, seconds, hertz)], format=format, codec=codec) for seconds, hertz in tones)
    assert heard(data)[:28] == [22] * 4 + [44] * 16 + [88] * 8
    assert heard(data, 0.5, 1.5) == [22] * 2 + [44] * 2  # a seek would land in a later recording
    assert heard(data, 1.5, 2.5) == [44] * 4
    assert heard(data, 4.5, 5.5) == [44] * 2 + [88] * 2
    assert heard(data, 6.0, 6.75) == [88] * 3
    refused(read_audio, data, "zero-length", "from 8.000 s on", start=8.0, end=9.0)


def test_the_second_of_two_appended_webm_recordings_is_read() -> None:
    data = b"".join(parts([(0, 2, hertz)], format="webm", codec="libopus") for hertz in (220, 880))
    assert heard(data, 1.5, 2.5) == [22] * 2 + [88] * 2
    assert heard(data, 3.0, 4.0) == [88] * 4  # beyond the first one's declared length


def test_pictures_of_an_appended_recording_go_on() -> None:
    data = b"".join(shots((160, 120, level, 2.0)) for level in (40, 120, 200))
    assert levels(data, 1.5, 2.5)[0] == [40] * 2 + [120] * 2
    assert levels(data, 4.5, 5.5)[0] == [200] * 4
    assert levels(data)[0] == [40] * 8 + [120] * 8 + [200] * 8


@pytest.mark.parametrize("local", [True, False])
def test_a_file_is_read_through_once_for_all_its_utterances(tmp_path: Path, local: bool) -> None:
    path = tmp_path / "call.ogg"
    data = b"".join(parts([(0, 2, hertz)], format="ogg", codec="libopus") for hertz in (220 + local, 880))
    path.write_bytes(data)
    with mock.patch.object(media, "_read_through", wraps=media._read_through) as reading:
        for start in (1.0, 2.0, 3.0):
            read_audio(path if local else data, start=start, end=start + 0.5)
    assert reading.call_count == 1


def test_times_that_are_rounded_make_no_gap() -> None:
    random = np.random.default_rng(0)
    even = [(0.1 * n, 0.1, 440.0) for n in range(10)]
    uneven = [(start + random.uniform(0, 0.004), length, hertz) for start, length, hertz in even]
    one, other = (read_audio(parts(p, format="matroska", codec="pcm_s16le")).samples for p in (even, uneven))
    shared = min(one.size, other.size) - 200
    np.testing.assert_allclose(one[:shared], other[:shared], atol=0.2)


# --- times, and errors of decoders ---

EPOCH = 1_767_225_600.0


@pytest.mark.parametrize("start", [EPOCH, EPOCH * 1e3, EPOCH * 1e6, EPOCH * 1e9, 1e300, np.inf, np.nan, -1.0])
@pytest.mark.parametrize("read", [read_audio, sample_frames])
def test_a_time_beyond_the_file_costs_one_utterance(read: Any, start: float) -> None:
    sources = [parts([(0, 1, 220)], format=format, codec=codec, pictures=1.0) for format, codec in KINDS[:3]]
    for source in [*sources, wav(tone(1.0)), sound(1.0, format="adts", codec="aac", layout="mono")]:
        for times in ({"start": start}, {"start": start, "end": start + 1.2}):
            with pytest.raises(MediaProblem) as caught:
                read(source, **times)
            assert caught.value.code in {"zero-length", "no-video-stream"}


@pytest.mark.parametrize(
    "error", [OSError(22, "Invalid argument"), OverflowError("too large"), ValueError(), KeyError(1)]
)
@pytest.mark.parametrize("read", [read_audio, sample_frames])
def test_any_error_of_a_decoder_costs_one_utterance(
    monkeypatch: pytest.MonkeyPatch, read: Any, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(media._Media, "frames", fail)
    source = parts([(0, 1, 220)], format="matroska", codec="flac", pictures=1.0)
    refused(read, source, "unreadable", "that FFmpeg decodes, but: ")


# --- files that are cut ---


def other_format(format: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=format) as out:
        stream: Any = out.add_stream(codec, rate=RATE, layout="mono")
        samples = (tone(4.0) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        out.mux([*stream.encode(frame), *stream.encode()])
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "codec"),
    [("wav", "pcm_s16le"), ("w64", "pcm_s16le"), ("caf", "pcm_s16be"), ("aiff", "pcm_s16be"), ("au", "pcm_s16be")],
)
def test_a_cut_file_is_flagged(format: str, codec: str) -> None:
    data = other_format(format, codec)
    cut = data[: len(data) // 2]
    assert (read_audio(data).flags, read_audio(cut).flags) == ((), (TRUNCATED,))
    assert read_audio(cut, start=0.5, end=1.5).flags == ()
    assert read_audio(cut, start=0.5).flags == (TRUNCATED,)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_size_that_the_writer_did_not_know_claims_nothing(size: int) -> None:
    data = wav(tone(2.0))
    place = data.index(b"data") + 4
    streamed = data[:place] + struct.pack("<I", size) + data[place + 4 :]
    found = read_audio(streamed)
    assert (found.samples.size, found.flags) == (2 * RATE, ())


# --- pictures of several sizes ---


def shots(*sizes: tuple[int, int, int, float]) -> bytes:
    """Return one stream of plain pictures of some widths, heights, brightnesses and seconds."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as out:
        stream: Any = out.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = *sizes[0][:2], "yuv420p"
        number = 0
        for width, height, level, seconds in sizes:
            encoder: Any = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 25), 25
            packets = []
            for _ in range(round(seconds * 25)):
                frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), level, np.uint8), format="rgb24")
                frame.pts, number = number, number + 1
                packets += encoder.encode(frame)
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                out.mux(packet)
    return file.getvalue()


def levels(data: bytes, start: float | None = None, end: float | None = None) -> tuple[list[int], tuple[int, ...]]:
    found = sample_frames(data, start=start, end=end)
    assert found.flags == ()
    return [round(float(picture.mean()), -1).__int__() for picture in found.pixels], found.pixels.shape[1:3]


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ((160, 120), (320, 240), (240, 320)),
        ((320, 240), (160, 120), (240, 320)),
        ((160, 96), (96, 160), (160, 160)),
        ((160, 96), (160, 128), (128, 160)),
    ],
)
def test_pictures_of_several_sizes_are_all_kept(
    first: tuple[int, int], second: tuple[int, int], both: tuple[int, int]
) -> None:
    data = shots((*first, 50, 1.0), (*second, 200, 3.0))
    assert levels(data) == ([50] * 4 + [200] * 12, both)
    assert levels(data, 0.5, 2.5) == ([50] * 2 + [200] * 6, both)
    assert levels(data, 1.5, 3.5) == ([200] * 8, second[::-1])
    assert sample_frames(data, crop="left").pixels.shape == (16, both[0], both[1] // 2, 3)


def test_a_picture_keeps_its_shape_among_larger_ones() -> None:
    small = np.zeros((4, 8, 3), np.uint8)
    small[:, 4:] = 200
    large = np.full((16, 8, 3), 90, np.uint8)
    one, other = media._of_one_size([small, large])
    np.testing.assert_array_equal(other, large)
    np.testing.assert_array_equal(one, np.broadcast_to(small[:1], (16, 8, 3)))


def test_pictures_that_begin_late_are_not_shown_early() -> None:
    data = parts([(0, 4, 220)], format="matroska", codec="pcm_s16le", pictures=2.0, begin=2.0)
    assert len(sample_frames(data, start=2.0, end=4.0).pixels) == 8
    assert len(sample_frames(data, start=0.0, end=3.0).pixels) <= 6
    refused(sample_frames, data, "unreadable", "no frame could be decoded from 0.000 s on", end=1.0)


def test_settings_of_earlier_revisions_are_read_as_the_present_ones() -> None:
    for revision in (1, 2):
        assert MediaSettings.model_validate({"revision": revision}) == MediaSettings()
    with pytest.raises(ValueError, match="revision"):
        MediaSettings.model_validate({"revision": 4})
