"""Flows: order, retries and schedules of what ``ada2i`` does; the only place that knows Prefect."""
