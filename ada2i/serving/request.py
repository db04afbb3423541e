"""What `ada2i serve` is asked to serve, and its limits; all checks are made here, before anything starts."""

import os
import socket
from typing import Annotated, Final

from pydantic import Field, ValidationError, field_validator

from ada2i import storage
from ada2i.config import Config, Positive
from ada2i.errors import AccessError, ConfigError, ResourceError
from ada2i.extraction.encoders import registry
from ada2i.inference.versions import check_code, load_config, open_version
from ada2i.jobs import code
from ada2i.prediction.records import LEAST_DIALOGUES
from ada2i.prediction.request import check_confidence, encoders_of
from ada2i.presets import explain
from ada2i.registry.versions import Version
from ada2i.serving.limits import Limits

TOKEN: Final = "ADA2I_SERVE_TOKEN"
"""Environment variable with the token that every request must carry."""

_SHORTEST_TOKEN = 16  # characters


class ServeSpec(Config):
    """What to serve, and where."""

    version: str = Field(description="MODEL@ALIAS, MODEL@NUMBER, MODEL, or the folder of a pulled copy.")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, lt=65536)] = 8100
    replicas: Positive = 1
    poll_seconds: Annotated[float, Field(gt=0)] = Field(5.0, description="Time between two looks at the alias.")
    min_confidence: float = Field(0.0, description="A turn whose largest probability is below it gets no label.")
    drift_window: Annotated[int, Field(ge=0)] = Field(
        200, description="Dialogues of each hour that a replica counts to detect drift; 0: none."
    )
    limits: Limits = Limits()
    allow_encoders: tuple[str, ...] = ()  # package.module:Class that a version may name for texts and clips
    code: dict[str, str] = Field(default_factory=dict)  # SHA-256 of classes that a version's model may name, by name

    @property
    def counts(self) -> bool:
        """Whether drift windows are kept; the folder of a copy has no place for them."""
        return self.drift_window > 0 and "/" not in self.version

    @field_validator("drift_window")
    @classmethod
    def _is_enough(cls, number: int) -> int:
        if 0 < number < LEAST_DIALOGUES:
            raise ValueError(f"must be 0, or at least {LEAST_DIALOGUES}: fewer dialogues say much about each one")
        return number


def spec_of(version: str, *, code_names: tuple[str, ...] = (), **fields: object) -> ServeSpec:
    """Return a spec.

    Args:
        version: See ``ServeSpec``.
        code_names: package.module:Class that the version's model may name.
        fields: Other fields of ``ServeSpec``.

    Raises:
        ConfigError: A field is wrong, or Python finds no source for a class.
    """
    if "/" in version:  # a relative folder is another one in the processes of Ray
        version = storage.normalise(version)
    try:
        return ServeSpec.model_validate({"version": version, "code": code.digests(code_names), **fields})
    except ValidationError as problem:
        raise ConfigError(f"The endpoint cannot be served: {'; '.join(explain(problem))}. Correct it.") from problem


def check(spec: ServeSpec, root: str) -> Version:
    """Find mistakes before anything starts, and return the version.

    Raises:
        AccessError: The environment names no token, or the store, which gets the drift windows, cannot be written.
        ConfigError: The version names code that the caller did not name, or an encoder whose package is not installed.
        NotFoundError: There is no such version.
        IntegrityError: A file differs from the registered one.
        ResourceError: Another process listens on the port.
    """
    token()
    check_port(spec.host, spec.port)
    uri, version = open_version(root, spec.version)
    config = load_config(uri, version)
    with code.named(spec.code):
        check_code(config, version)
    check_confidence(spec.min_confidence, config, version)
    if spec.counts:
        _check_writable(root)
    if version.features.recipe is not None:
        encoders = encoders_of(version, config.model.modalities, spec.allow_encoders).encoders
        for modality in config.model.modalities:
            registry.check(encoders[modality].spec, modality, encoders[modality].settings)
    return version


def token() -> str:
    """Return the token that every request must carry.

    Raises:
        AccessError: The environment names none, or one that is too short.
    """
    found = os.environ.get(TOKEN, "")
    if len(found) < _SHORTEST_TOKEN:
        raise AccessError(
            f"{TOKEN} must hold a token of at least {_SHORTEST_TOKEN} characters, which every request must carry, but "
            f"holds {len(found)}. Set it, for example by: export {TOKEN}=$(openssl rand -hex 32)"
        )
    return found


def _check_writable(root: str) -> None:
    """Check that the drift windows can be written."""
    try:
        storage.check_writable(root)
    except AccessError as problem:
        raise AccessError(
            f"{problem.message} To serve from a store that cannot be written, set `--drift-window 0`.",
            **problem.context,
        ) from problem


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises:
        ConfigError: The host is no address of this machine.
        ResourceError: Another process listens on the port.
    """
    try:
        place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as problem:
        raise ConfigError(
            f"`--host` must be an address of this machine, but is {host!r}. Write 127.0.0.1, or 0.0.0.0 for all.",
            field="host",
        ) from problem
    with socket.socket(place[0], place[1]) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place[4])
        except OSError as problem:
            raise ResourceError(
                f"Port {port} of {host} must be free, but cannot be listened on: {problem.strerror}. Choose another "
                "with `--port`.",
                field="port",
            ) from problem
