"""The error classes: the class decides who must act, and whether a retry can help.

Every error carries one message, with what must hold, what was found and what to do next, and keyword context
(``uri``, ``row``, ``field``...). Both survive pickling, so an error raised in a worker reads the same in the driver.
"""

from typing import Any


class Ada2iError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: One or more complete sentences.
        context: The subjects of the message, for programs.
        exit_code: The command line's exit code for it.
        retryable: Whether the same call may succeed later without any change.
    """

    exit_code = 1
    retryable = False

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.context)


def _rebuild(cls: type[Ada2iError], message: str, context: dict[str, Any]) -> Ada2iError:
    return cls(message, **context)


class InputError(Ada2iError):
    """The caller must change something; nothing was written."""

    exit_code = 2


class ConfigError(InputError):
    """A config field, preset or option is wrong."""


class DataError(InputError):
    """A source, shard, checkpoint or stored object has wrong content or a wrong form."""


class IntegrityError(DataError):
    """A stored object's bytes differ from the digest recorded for it."""


class ResourceError(InputError):
    """The request needs more of something than exists, such as memory, room on a disk or a free port."""


class CapacityError(ResourceError):
    """A cluster lacks CPUs or GPUs now; nodes may still join, as after a restart of the head."""

    retryable = True


class AccessError(InputError):
    """Credentials are missing or refused, or a location may not be written."""


class NotFoundError(InputError):
    """A named object does not exist."""


class ConflictError(InputError):
    """Another process was faster; look at the current state, then repeat the command."""


class UnreachableError(Ada2iError):
    """A service does not answer: its address is wrong, or it is temporarily down."""

    exit_code = 2
    retryable = True


class JobError(Ada2iError):
    """A job on the cluster ended without a result; a new attempt resumes from the newest checkpoint."""

    retryable = True


class PreemptedError(JobError):
    """A job was preempted and wrote a checkpoint; a new attempt resumes from it."""


class DivergenceError(Ada2iError):
    """A loss or gradient is not finite; all ranks stopped before the optimizer step."""


def _family(kind: type[Ada2iError]) -> dict[str, type[Ada2iError]]:
    own = {kind.__name__: kind}
    return own | {name: found for child in kind.__subclasses__() for name, found in _family(child).items()}


KINDS = _family(Ada2iError)
"""Every error class of this package by name: the classes that another process may report."""
