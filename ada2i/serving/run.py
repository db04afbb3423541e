"""Starts and ends the endpoint on Ray Serve: on the cluster of ``RAY_ADDRESS``, else on a private local one."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ada2i.jobs.cluster import connected
from ada2i.jobs.fanout import ONE_THREAD
from ada2i.serving.guard import digest
from ada2i.serving.request import ServeSpec, token
from ada2i.store import Store

APP: Final = "ada2i"
_LOGGING: Final = {"enable_access_log": False, "log_level": "WARNING"}  # paths hold the ids of sessions
_MOST_WAITING: Final = 1024  # requests that reach a process; `Limits.requests` refuses more with a message


@contextmanager
def serving(spec: ServeSpec, root: str) -> Iterator[str]:
    """Serve while the block runs; yield the URL.

    Args:
        spec: What to serve; it was checked.
        root: The storage root.

    Raises:
        UnreachableError: The private Ray head does not start.
    """
    with connected():
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        http = {"host": spec.host, "port": spec.port, "keep_alive_timeout_s": 60}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=_LOGGING)
        try:
            serve.run(application(spec, root), name=APP, logging_config=_LOGGING)
            yield f"http://{'127.0.0.1' if spec.host == '0.0.0.0' else spec.host}:{spec.port}"
        finally:
            serve.delete(APP)  # on a cluster of others, Ray Serve may run their applications


def application(spec: ServeSpec, root: str) -> Any:
    """Return the Ray Serve application: one endpoint and some model replicas."""
    from ray import serve

    from ada2i.serving.endpoint import Endpoint
    from ada2i.serving.replica import Replica

    replicas: Any = serve.deployment(Replica)
    replicas = replicas.options(
        num_replicas=spec.replicas,
        max_ongoing_requests=_MOST_WAITING,
        ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": ONE_THREAD}},
        logging_config=_LOGGING,
    )
    endpoint: Any = serve.deployment(Endpoint)
    endpoint = endpoint.options(
        num_replicas=1,
        max_ongoing_requests=_MOST_WAITING,
        ray_actor_options={"num_cpus": 0},
        logging_config=_LOGGING,
    )
    return endpoint.bind(replicas.bind(spec, root), spec.limits, digest(token()))


def build(arguments: dict[str, Any]) -> Any:
    """Return the application for ``serve run`` and for a RayService, whose arguments are fields of ``ServeSpec``.

    The root is that of ``ADA2I_ROOT``, and the token that of ``ADA2I_SERVE_TOKEN``.
    """
    return application(ServeSpec.model_validate(arguments), Store.open(os.environ["ADA2I_ROOT"]).root)
