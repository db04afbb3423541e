"""The process that decodes one clip: FFmpeg never parses a client's bytes in a process that answers others.

``python -m ada2i.serving.clip_child SETTINGS MODALITIES MEMORY SECONDS`` reads the file from standard input and writes
an ``npz`` archive of the samples (``audio``) and pixels (``visual``) to standard output. Memory and time have limits:
``RLIMIT_AS`` and ``RLIMIT_CPU`` of this process. If the clip cannot be used, the last line on standard error is JSON
with ``code`` and ``message``, and the exit code is ``REFUSED``.
"""

import json
import logging
import resource
import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ada2i.extraction import media

REFUSED: Final = 3
_DECODERS: Final[Mapping[str, Any]] = {"audio": media.read_audio, "visual": media.sample_frames}


def main(settings: str, modalities: str, memory: int, seconds: int) -> int:
    """Decode the clip; see the head of this file."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    clip = sys.stdin.buffer.read()
    known = media.MediaSettings.model_validate_json(settings)
    arrays: dict[str, Any] = {}
    try:
        for modality in modalities.split(","):
            decoded = _DECODERS[modality](clip, settings=known)
            if decoded.flags:
                return _refuse(decoded.flags[0], _flagged(decoded.flags[0], known.limit_s))
            arrays[modality] = decoded.samples if isinstance(decoded, media.Waveform) else decoded.pixels
    except media.MediaProblem as problem:
        return _refuse(problem.code, problem.message)
    np.savez(sys.stdout.buffer, **arrays)
    return 0


def _flagged(flag: str, longest: float) -> str:
    if flag == media.OVER_LONG:
        return f"A clip must last at most {longest:g} s, but lasts longer. Send what one speaker says in one turn."
    return "A clip must be complete, but ends before its declared end. Send the whole file."


def _refuse(code: str, message: str) -> int:
    sys.stderr.write(f"\n{json.dumps({'code': code, 'message': message})}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
