"""All checks, in the order in which to fix what they find."""

from collections.abc import Iterator

from ada2i.doctor.check import Check
from ada2i.doctor.cluster import check_cluster
from ada2i.doctor.flows import check_flows
from ada2i.doctor.machine import check_machine
from ada2i.doctor.store import check_store


def examine(root: str) -> Iterator[Check]:
    """Look at this machine, the storage root, Ray and Prefect, one finding after the other.

    Args:
        root: Where runs are kept: a folder, or ``s3://bucket/prefix``.
    """
    yield from check_machine()
    yield from check_store(root)
    yield from check_cluster()
    yield from check_flows()
