"""Limits of requests and of live sessions."""

from typing import Annotated

from pydantic import Field

from ada2i.config import Config, Positive

_MIB = 1 << 20


class Limits(Config):
    """Limits of requests and of what is kept between them."""

    body_bytes: Positive = Field(16 * _MIB, description="Size of a request's body.")
    turns: Positive = Field(512, description="Turns of a dialogue in one request.")
    text_chars: Positive = Field(10_000, description="Characters of a turn's text.")
    clip_bytes: Positive = Field(8 * _MIB, description="Size of a turn's media clip, decoded from base64.")
    clip_seconds: Annotated[float, Field(gt=0)] = Field(60.0, description="Duration of a turn's media clip.")
    clip_memory: Positive = Field(2048 * _MIB, description="Address space of the process that decodes a clip, bytes.")
    seconds: Annotated[float, Field(gt=0)] = Field(30.0, description="Time until a request must be answered.")
    requests: Positive = Field(256, description="Requests that are answered at the same time.")
    sessions: Positive = Field(256, description="Live sessions at the same time.")
    session_turns: Positive = Field(2048, description="Turns of a live session.")
    session_bytes: Positive = Field(16 * _MIB, description="Memory that a live session's context may take.")
    session_seconds: Annotated[float, Field(gt=0)] = Field(
        900.0, description="Time after its last turn at which a live session expires."
    )
