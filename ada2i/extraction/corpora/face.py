"""Draws a talking face, and encodes it as a small video.

Eye sockets, nose and mouth are darker than cheeks and forehead, so face detectors find it: OpenCV's
frontal Haar cascade finds it in over 99 of 100 frames of the demo corpus.

Shape letters in this file:
    H height     W width
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]  # blue, green, red

WIDTH, HEIGHT = 160, 120
FRAMES_PER_SECOND = 6

SKINS: Sequence[Colour] = ((150, 185, 220), (125, 160, 200))

_WALL, _HAIR, _COAT = (95, 90, 85), (35, 40, 50), (120, 80, 60)
_WHITE, _PUPIL, _LIPS, _THROAT = (235, 235, 235), (30, 25, 20), (60, 50, 130), (40, 30, 70)


@dataclass(frozen=True)
class Look:
    """The look of an emotion.

    Attributes:
        smile: From -1 (corners of the mouth down) to 1.
        brows: From -1 (inner ends down) to 1.
        lift: How far the brows are raised, in thirds of an eye.
        open: How far the mouth is open, from 0 to 1.
        eyes: How far the eyes are open; 1 at rest.
    """

    smile: float
    brows: float
    lift: float
    open: float
    eyes: float


LOOKS: Mapping[str, Look] = {
    "neutral": Look(smile=0.0, brows=0.0, lift=0.0, open=0.05, eyes=1.0),
    "joy": Look(smile=1.0, brows=0.0, lift=0.5, open=0.30, eyes=0.8),
    "sadness": Look(smile=-0.8, brows=1.0, lift=0.0, open=0.05, eyes=0.7),
    "anger": Look(smile=-0.6, brows=-1.0, lift=-0.5, open=0.15, eyes=0.9),
    "surprise": Look(smile=0.0, brows=0.1, lift=1.5, open=1.00, eyes=1.5),
    "fear": Look(smile=-0.4, brows=0.7, lift=1.0, open=0.60, eyes=1.4),
}


def talk(random: np.random.RandomState, look: Look, *, skin: Colour, seconds: float) -> bytes:
    """Return an mp4 of a face that moves a little and opens its mouth as it speaks.

    Args:
        random: Source of deviations from the look, of movements, and of camera noise.
        look: The expression.
        skin: The face's colour.
        seconds: Length, rounded to whole frames.
    """
    own = np.array(astuple(look)) + random.normal(0, (0.25, 0.25, 0.25, 0.05, 0.08))
    place = np.array([WIDTH / 2, HEIGHT / 2]) + random.normal(0, 4, size=2)
    size = random.uniform(0.85, 1.05)
    pictures = []
    for number in range(round(seconds * FRAMES_PER_SECOND)):
        place = place + random.normal(0, 0.8, size=2)
        speaking = 0.15 * (number % 2)
        smile, brows, lift, opened, eyes = own + random.normal(0, 0.05, size=5)
        now = Look(smile, brows, lift, min(1.0, max(0.0, opened + speaking)), max(0.3, eyes))
        pictures.append(_noisy(random, _draw(now, _Pen(_blank(), place, size), skin)))
    return encode(pictures)


def empty_room(random: np.random.RandomState, *, seconds: float) -> bytes:
    """Return an mp4 of a wall without a face."""
    return encode([_noisy(random, _blank()) for _ in range(round(seconds * FRAMES_PER_SECOND))])


def encode(pictures: Sequence[Picture]) -> bytes:
    """Return ``(H, W, 3)`` blue, green and red bytes per frame as an mp4; the same pictures give the same bytes."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # with threads, the slices of a frame depend on their number
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return buffer.getvalue()


# --- drawing ---


@dataclass(frozen=True)
class _Pen:
    """A picture with the position and size of a face: drawing units are pixels of a face of size 1."""

    picture: Picture
    place: NDArray[np.float64]
    size: float

    def point(self, x: float, y: float) -> tuple[int, int]:
        across, down = np.rint(self.place + self.size * np.array([x, y])).astype(int).tolist()
        return across, down

    def ellipse(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        import cv2

        axes = (max(1, round(self.size * width)), max(1, round(self.size * height)))
        cv2.ellipse(self.picture, self.point(x, y), axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    def line(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        import cv2

        at = np.array([self.point(x, y) for x, y in points], np.int32)
        cv2.polylines(self.picture, [at], False, colour, max(1, round(self.size * width)), cv2.LINE_AA)


def _blank() -> Picture:
    return np.full((HEIGHT, WIDTH, 3), _WALL, np.uint8)


def _noisy(random: np.random.RandomState, picture: Picture) -> Picture:
    """Return the picture with the noise of a cheap camera."""
    import cv2

    soft = cv2.GaussianBlur(picture, (0, 0), 1.2)
    grain = random.randint(-10, 11, size=(HEIGHT, WIDTH, 1), dtype=np.int8)
    found: Picture = np.clip(soft.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    return found


def _draw(look: Look, pen: _Pen, skin: Colour) -> Picture:
    light, shade, dark = (_shaded(skin, share) for share in (1.12, 0.72, 0.35))
    pen.ellipse(0, -8, 40, 48, _HAIR)
    pen.ellipse(0, 56, 48, 22, _COAT)
    pen.ellipse(0, 0, 34, 46, skin)
    pen.ellipse(0, -24, 26, 12, light)
    for side in (-1, 1):
        pen.ellipse(15 * side, -9, 11, 7, shade)
        pen.ellipse(15 * side, 12, 10, 9, light)
        pen.ellipse(15 * side, -7, 7, 3 * look.eyes + 0.5, _WHITE)
        pen.ellipse(15 * side, -7, 3.2, 3 * look.eyes + 0.5, _PUPIL)
        brow = -16 - 3 * look.lift
        pen.line([(24 * side, brow + 3 * look.brows), (7 * side, brow - 3 * look.brows)], 3, dark)
    pen.ellipse(0, 4, 4, 13, light)
    pen.ellipse(0, 14, 7, 3, shade)
    _draw_mouth(look, pen)
    return pen.picture


def _draw_mouth(look: Look, pen: _Pen) -> None:
    if look.open > 0.05:
        pen.ellipse(0, 27 + 2 * look.smile, 9, 1 + 6 * look.open, _THROAT)
    across = np.linspace(-13, 13, 9)
    down = 27 + look.smile * (2.5 - 5 * (across / 13) ** 2)
    pen.line(list(zip(across.tolist(), down.tolist(), strict=True)), 3, _LIPS)


def _shaded(colour: Colour, share: float) -> Colour:
    blue, green, red = (min(255, int(share * part)) for part in colour)
    return blue, green, red
