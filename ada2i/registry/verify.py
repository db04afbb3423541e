"""Checks that all registered objects are unchanged."""

from collections.abc import Iterator

from ada2i import storage
from ada2i.errors import InputError, NotFoundError
from ada2i.records import Record, Sealed, get_folder_file
from ada2i.registry.aliases import MARK, MARKS, history, is_alias
from ada2i.registry.paths import CLAIM, FATE, MANIFEST, home_uri, number_of, number_uri, numbered, numbers
from ada2i.registry.retention import KEPT, RETIRED
from ada2i.registry.verdicts import verdicts
from ada2i.registry.versions import Claim, Version, check_model_name, find, load_version


class Problem(Record):
    """A stored object that is damaged or missing."""

    uri: str
    message: str


def verify(root: str, model: str, number: int | None = None) -> list[Problem]:
    """Read and check every object of a model; remains of killed registrations are not damage.

    Checks each file of each version against size and digest, the seals of manifests, moves and verdicts, that no move
    or verdict is missing and no move was replaced, that aliases point to existing versions, that every version that was
    given an alias is named by a move, that each run's pointer names its own version, and that no other names are there.

    Args:
        root: The storage root.
        model: The model's name.
        number: Only this version, without aliases and pointers; None: everything.

    Returns:
        A problem for each damaged or missing object; empty if there is none.

    Raises:
        ConfigError: The model's name is no safe folder.
        NotFoundError: There is no such model, or it has no such version.
    """
    check_model_name(model)
    home = home_uri(root, model)
    if number is not None:
        if number not in numbers(home):
            find(root, model, number)  # raises if it does not exist
        return list(_check_version(home, number))
    if not storage.children(home):
        find(root, model)
    problems = [problem for found in numbers(home) for problem in _check_version(home, found)]
    problems += _check_aliases(root, model) + _check_verdicts(root, model)
    return [*problems, *_check_pointers(home), *_check_names(home)]


def _check_version(home: str, number: int) -> Iterator[Problem]:
    uri = number_uri(home, number)
    try:
        version = load_version(uri)
    except InputError as error:
        yield _problem(error, uri)
        return
    if version is None:
        return
    yield from _check_seal(version, storage.join(uri, MANIFEST))
    for name, entry in version.files.items():
        try:
            get_folder_file(uri, name, entry)
        except InputError as error:
            yield _problem(error, storage.join(uri, name))
    yield from _check_bytes(storage.join(uri, CLAIM), [Claim(run_id=version.run_id).to_json()])
    if storage.exists(fate := storage.join(uri, FATE)):
        yield from _check_bytes(fate, [KEPT, RETIRED])


def _check_bytes(uri: str, allowed: list[bytes]) -> Iterator[Problem]:
    try:
        found = storage.get(uri)
    except NotFoundError as error:
        yield _problem(error, uri)
        return
    if found not in allowed:
        wanted = " or ".join(data.decode().strip() for data in allowed)
        yield Problem(uri=uri, message=f"{uri} must hold {wanted}, but holds {found[:80]!r}. Write that again.")


def _check_seal(record: Sealed, uri: str) -> Iterator[Problem]:
    """Report a record of the registry without a seal: each is written with one."""
    if record.seal is None:
        yield Problem(uri=uri, message=f"{uri} must carry its seal, but has none: it was changed. Restore it.")


def _check_aliases(root: str, model: str) -> list[Problem]:
    home = home_uri(root, model)
    problems = list[Problem]()
    for alias in _aliases(home):
        uri = storage.join(home, "aliases", alias)
        try:
            moves = history(root, model, alias)
            for move in moves:
                problems += _check_seal(move, storage.join(uri, f"{move.n}.json"))
            for number in sorted({move.number for move in moves}):
                find(root, model, number)
        except InputError as error:
            problems.append(_problem(error, uri))
    return [*problems, *(problem for number in numbers(home) for problem in _check_marks(home, model, number))]


def _check_marks(home: str, model: str, number: int) -> Iterator[Problem]:
    """Report moves after the newest one of their alias that a version's marks name: a history that was cut."""
    uri = storage.join(number_uri(home, number), MARKS)
    for name in storage.children(uri):
        yield from _check_bytes(storage.join(uri, name), [MARK])
        alias, _, n = name.rpartition("-")
        folder = storage.join(home, "aliases", alias)
        if (number_of(n) or 0) > max(numbered(folder, ".json"), default=0):
            place = storage.join(folder, f"{n}.json")
            found = f"{model}@{number} was given {alias} by move {n}, but {place} is missing: the history lost its end."
            yield Problem(uri=place, message=f"{found} Restore it.")


def _check_verdicts(root: str, model: str) -> list[Problem]:
    uri = storage.join(home_uri(root, model), "verdicts")
    try:
        return [p for one in verdicts(root, model) for p in _check_seal(one, storage.join(uri, f"{one.n}.json"))]
    except InputError as error:
        return [_problem(error, uri)]


def _check_names(home: str) -> Iterator[Problem]:
    """Report names that the registry passes over, such as those that a file manager writes."""
    aliases = [(f"aliases/{alias}", ".json") for alias in _aliases(home)]
    for folder, suffix in (("versions", ""), ("verdicts", ".json"), *aliases):
        for name in storage.children(storage.join(home, folder)):
            if not name.endswith(suffix) or number_of(name.removesuffix(suffix)) is None:
                yield _stray(storage.join(home, folder, name))
    for name in storage.children(storage.join(home, "aliases")):
        if name not in _aliases(home):
            yield _stray(storage.join(home, "aliases", name))


def _stray(uri: str) -> Problem:
    return Problem(uri=uri, message=f"{uri} is not an object of the registry and is passed over. Delete it.")


def _aliases(home: str) -> list[str]:
    return [name for name in storage.children(storage.join(home, "aliases")) if is_alias(name)]


def _check_pointers(home: str) -> Iterator[Problem]:
    runs = storage.join(home, "runs")
    for name in storage.children(runs):
        places = (
            [name] if name.endswith(".json") else [f"{name}/{child}" for child in storage.children(f"{runs}/{name}")]
        )
        for place in places:
            run_id = place.partition("/")[0].removesuffix(".json")
            yield from _check_pointer(home, run_id, storage.join(runs, place))


def _check_pointer(home: str, run_id: str, place: str) -> Iterator[Problem]:
    text = storage.get(place).decode(errors="replace")
    number = number_of(text)
    if number not in numbers(home):
        found = f"{place} must name a version number of run {run_id}, but holds {text[:20]!r}. Restore it."
        yield Problem(uri=place, message=found)
        return
    version = _version(number_uri(home, number))
    if version is not None and version.run_id != run_id:
        found = f"{place} must name the version of run {run_id}, but names {text}, of run {version.run_id}. Restore it."
        yield Problem(uri=place, message=found)


def _version(uri: str) -> Version | None:
    """Return a version, or None if it is damaged; another check reports the damage."""
    try:
        return load_version(uri)
    except InputError:
        return None


def _problem(error: InputError, uri: str) -> Problem:
    return Problem(uri=error.context.get("uri", uri), message=error.message)
