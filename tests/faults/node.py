"""A second node of a Ray cluster, on this machine: ``python -m tests.faults.node ADDRESS CPUS``.

``ray start`` refuses to add nodes where everything listens on loopback; this starts one as Ray's own tests do.
"""

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

from ada2i.jobs import cluster


def main(address: str, cpus: int) -> None:
    """Be a node until the process is ended."""
    settings = RayParams(
        gcs_address=address,
        node_ip_address="127.0.0.1",
        num_cpus=cpus,
        num_gpus=0,
        object_store_memory=128 << 20,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        dashboard_agent_listen_port=cluster.free_port(),
        include_log_monitor=None,  # the head's reads the logs of this machine
    )
    Node(settings, head=False, shutdown_at_exit=True, spawn_reaper=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
