"""Actions of Ray Train in the workers of a DDP group before and after training."""

import threading
from typing import Any

from ray.train.backend import Backend, BackendConfig

from ada2i.jobs import preemption, ray_compat


class PreemptionBackend(Backend):
    """Handles preemption in the workers' main threads; training runs in another thread."""

    def on_training_start(self, worker_group: Any, *_: Any) -> None:
        """Make the workers watch for requests to leave, and import what training needs."""
        worker_group.execute(preemption.listen_as_worker)
        worker_group.execute(start_importing)

    def on_shutdown(self, worker_group: Any, *_: Any) -> None:
        """Make the workers leave after a checkpoint, as when an elastic group changes its size.

        If the group lost a worker, the first call fails; if the group has finished, both return at once.
        """
        worker_group.execute(preemption.request)
        worker_group.execute(preemption.wait_until_left)


def start_importing() -> None:
    """Import the training loop in a thread.

    Ray Train starts training only after it has imported torch on rank 0; all ranks import it meanwhile.
    """

    def load() -> None:
        from ada2i.training import fit  # noqa: F401 - imports torch, too

    threading.Thread(target=load, name="ada2i-imports", daemon=True).start()


class OwnProcessGroup(BackendConfig):
    """Leaves the process group to the workers, which join it through the addresses of their own nodes."""

    backend_cls = PreemptionBackend

    @property
    def framework(self) -> Any:
        """Torch, in the state of a training that Ray's dashboard shows."""
        return ray_compat.torch_framework()
