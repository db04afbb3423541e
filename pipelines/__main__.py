"""Runs the flow `train-ada2i` in this process: ``python -m pipelines [FEATURES]``, which is what `make run` does.

Without a configured Prefect server Prefect starts a temporary one; without a configured Ray cluster the flow starts a
private one.
"""

import argparse
import os
import sys

from rich.console import Console


def main() -> int:
    """Run the flow once and show its result; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Run the flow train-ada2i here.")
    parser.add_argument(
        "features",
        nargs="?",
        default="demo-media",
        help="a feature set, a table to import, `demo` (made-up features), a raw corpus as corpus:KIND:LOCATION, or "
        "`demo-media` (made-up recordings; default)",
    )
    parser.add_argument("--model", help="name in the registry; by default ada2i- and the dataset")
    parser.add_argument("--modalities", help="letters of t(ext), a(udio), v(isual); by default all that there are")
    options = parser.parse_args()
    # Set before Prefect is imported, which is when Prefect reads them.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_PLUGINS_ENABLED", "false")

    from ada2i.errors import Ada2iError

    try:
        _run(options.features, options.model, options.modalities or None)
    except Ada2iError as error:
        Console(stderr=True).print(f"error: {error.message}", markup=False, soft_wrap=True, highlight=False)
        return error.exit_code
    return 0


def _run(location: str, model: str | None, modalities: str | None) -> None:
    from ada2i import storage
    from ada2i.cli.training import show_result
    from ada2i.extraction.request import check, parse
    from ada2i.importers.resolve import resolve_features
    from ada2i.presets import parse_modalities
    from ada2i.records import RunResult
    from ada2i.registry.versions import Version
    from ada2i.store import Store

    store = Store.open().writable()
    # Check the input before any server starts.
    needs = parse_modalities(modalities) if modalities else ()
    if raw := parse(location):
        check(*raw, needs=needs)
    else:
        location = resolve_features(location, store.root, needs=needs).uri

    _check_server()
    from pipelines.train import train_ada2i

    uri = str(
        train_ada2i(features=location, model=model, modalities=modalities, force=True)
    )  # Prefect returns the state's result
    version = Version.load(storage.join(uri, "manifest.json"))
    show_result(RunResult.load(storage.join(uri, "result.json")), version.name)


def _check_server() -> None:
    """Check that a configured Prefect server answers; a stack that ended without `make down` leaves its address."""
    from prefect.settings import get_current_settings

    from ada2i.errors import UnreachableError
    from ada2i.jobs.http import request

    address = get_current_settings().api.url
    if address and request(f"{address}/health", {})[0] == 0:
        raise UnreachableError(
            f"The configured Prefect server must answer at {address}, but does not. Start it (`make up`), or "
            "remove its address: `make down`, or unset PREFECT_API_URL.",
            address=address,
        )


if __name__ == "__main__":
    sys.exit(main())
