"""Face detection in pictures: Viola and Jones' cascade (2001), as OpenCV ships it.

Shape letters in this file:
    F frames     Y height     X width, pixels
"""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ada2i.errors import ConfigError

Pixels: TypeAlias = npt.NDArray[np.uint8]

_STEP = 1.1  # ratio of successive face sizes in the search
_NEIGHBOURS = 5  # overlapping detections that count as a face
_MARGIN = 0.2  # of the face's side, on each side


class FaceFinder:
    """Finds the largest frontal face.

    Attributes:
        weights: The cascade's file.
    """

    def __init__(self, *, detection_side: int) -> None:
        """Load the cascade.

        Args:
            detection_side: Longer side, in pixels, to which a picture is reduced before detection. A face of less than
                24 pixels in the reduced picture is not found. Half that side is tried first: it takes a quarter of the
                time, and is enough for most faces.
        """
        import cv2

        if not hasattr(cv2, "CascadeClassifier"):
            raise ConfigError(
                f"Face detection needs OpenCV 4, but OpenCV {cv2.__version__} is installed, which has no cascades. "
                "Run: pip install 'ada2i[extract]'"
            )
        self.weights = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self._cascade: Any = cv2.CascadeClassifier(str(self.weights))
        self._side = detection_side

    def crops(self, pixels: Pixels) -> list[Pixels]:
        """Return the face, with a margin, of each of ``(F, Y, X, 3)`` pictures that shows one: ``(y, x, 3)`` each."""
        found = [(frame, self._largest(frame)) for frame in pixels]
        return [_cut(frame, box) for frame, box in found if box is not None]

    def _largest(self, frame: Pixels) -> tuple[float, float, float] | None:
        """Return left, top and side of the largest face, in pixels of ``(Y, X, 3)``."""
        import cv2

        # With several threads, OpenCV would find candidates in a different order each time.
        cv2.setNumThreads(1)
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        for scale in sorted({min(1.0, side / max(grey.shape)) for side in (self._side // 2, self._side)}):
            small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            boxes = self._cascade.detectMultiScale(small, _STEP, _NEIGHBOURS)
            if len(boxes):
                # Of equally large faces, the topmost, then the leftmost.
                left, top, side, _ = max(boxes, key=lambda box: (box[2], -box[1], -box[0]))
                return left / scale, top / scale, side / scale
        return None


def _cut(frame: Pixels, box: tuple[float, float, float]) -> Pixels:
    left, top, side = box
    margin = _MARGIN * side
    first_y, first_x = (max(0, round(at - margin)) for at in (top, left))
    last_y, last_x = (round(at + side + margin) for at in (top, left))
    return frame[first_y:last_y, first_x:last_x]
