"""Errors survive pickling, and their class says who acts and whether a retry can help."""

import pickle

import pytest

from ada2i import errors
from ada2i.errors import Ada2iError

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Ada2iError)]

EXIT_CODES = {
    "Ada2iError": 1,
    "InputError": 2,
    "ConfigError": 2,
    "DataError": 2,
    "IntegrityError": 2,
    "ResourceError": 2,
    "CapacityError": 2,
    "AccessError": 2,
    "NotFoundError": 2,
    "ConflictError": 2,
    "UnreachableError": 2,
    "JobError": 1,
    "PreemptedError": 1,
    "DivergenceError": 1,
}


def test_the_family_is_complete() -> None:
    assert {kind.__name__: kind.exit_code for kind in CLASSES} == EXIT_CODES


def test_only_what_may_pass_is_retryable() -> None:
    transient = {"UnreachableError", "CapacityError", "JobError", "PreemptedError"}
    assert {kind.__name__ for kind in CLASSES if kind.retryable} == transient


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_class_message_and_context(kind: type[Ada2iError], protocol: int) -> None:
    error = kind("It must be so, but is not. Correct it.", uri="s3://b/k", row=3, ranks=["0"])
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert again.message == error.message
    assert again.context == {"uri": "s3://b/k", "row": 3, "ranks": ["0"]}


@pytest.mark.parametrize("kind", CLASSES)
def test_prints_as_its_message_alone(kind: type[Ada2iError]) -> None:
    assert str(pickle.loads(pickle.dumps(kind("One sentence.", field="x")))) == "One sentence."
