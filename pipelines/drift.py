"""Flow `watch-drift`: compares what champions answered, as the endpoint keeps it, with their training sets."""

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from ada2i import storage, usecases
from ada2i.drift import Window
from ada2i.drift.windows import PAGE
from ada2i.errors import Ada2iError
from ada2i.reports.report import Row, markdown_table
from ada2i.store import Store
from pipelines.alerts import alert

DRIFTED = "ada2i.drift.detected"


@flow(name="watch-drift", on_crashed=[alert], on_failure=[alert])
def watch_drift(root: str | None = None, code: list[str] = []) -> list[str]:  # noqa: B006 - Prefect shows the default in its form
    """Compare the newest window of each champion, unless it was compared before; see `report_drift`.

    Args:
        root: Where everything is stored; by default ADA2I_ROOT.
        code: package.module:Class that the champions may name for their models; their code runs.

    Returns:
        Names of the versions that were compared.
    """
    store = Store.open(root)
    found = usecases.new_windows(store)
    for window in found:
        report_drift(window, store, tuple(code))
    return [f"{window.model}@{window.version}" for window in found]


@task(name="drift")
def report_drift(window: Window, store: Store, code: tuple[str, ...]) -> None:
    """Compare a window with its model's training set; emit an event if it differs."""
    log, name = get_run_logger(), f"{window.model}@{window.version}"
    try:
        _, judged = usecases.drift(name, store, run_id=window.run_id, own=code)
    except Ada2iError as error:
        log.warning("Drift was not measured: %s", error.message)
        return
    ((_, result),) = judged
    above: list[Row] = [
        {"statistic": one.name, "value": f"{one.value:.3f}", "limit": f"{one.limit:.3f}"}
        for one in result.statistics
        if one.exceeds
    ]
    page = storage.join(store.drift(window.model, window.version), PAGE)
    text = markdown_table(above) if above else "No statistic is above its limit."
    text += f"\n\n- report: `{page}`; `ada2i drift {name} --open` shows it\n"
    create_markdown_artifact(key="ada2i-drift", markdown=text, description=f"Drift of {window.source} from {name}")
    if not result.drifted:
        return
    log.warning("%s differs from what %s was trained on: see `ada2i drift %s`.", window.source, name, name)
    resource = {
        "prefect.resource.id": f"ada2i.model.{window.model}",
        "prefect.resource.name": window.model,
        "ada2i.version": name,
        "ada2i.source": window.source,
        "ada2i.report": page,
    }
    emit_event(event=DRIFTED, resource=resource)
