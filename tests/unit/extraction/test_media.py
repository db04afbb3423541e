"""Files are made here, small, so what must come out of them is known; what is broken is refused by a word."""

import io
import pickle
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

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
