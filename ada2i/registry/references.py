"""References to versions: ``MODEL@champion``, ``MODEL@3``, or ``MODEL`` for the newest."""

from ada2i.display import similar
from ada2i.errors import ConfigError, NotFoundError
from ada2i.registry.aliases import aliases, check_alias, current
from ada2i.registry.paths import number_of
from ada2i.registry.versions import Version, check_model_name, find


def resolve(root: str, reference: str) -> Version:
    """Return the version that a reference names.

    Raises:
        ConfigError: The text is not a reference.
        NotFoundError: There is no such version or alias.
        IntegrityError: The version's manifest or the alias's newest move is damaged.
    """
    model, at, which = reference.partition("@")
    if at and not which:
        raise ConfigError(
            f"A version must be MODEL, MODEL@NUMBER or MODEL@ALIAS, but is {reference[:200]!r}. Write for "
            "example `ada2i@3`."
        )
    check_model_name(model)
    if not at:
        return find(root, model)
    if which.isdecimal():
        if (number := number_of(which)) is None:
            raise ConfigError(f"A version's number must be 1 to 999999999, but is {which[:20]}. Correct it.")
        return find(root, model, number)
    check_alias(which)
    move = current(root, model, which)
    if move is None:
        known = aliases(root, model)
        raise NotFoundError(
            f"{root} must hold the alias {reference}, but {model} has {', '.join(known) or 'none'}."
            f"{similar(which, known)} Promote a version to it, or write {model}@NUMBER.",
            model=model,
        )
    return find(root, model, move.number)
