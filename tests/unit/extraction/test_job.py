"""Which CPUs and GPUs the workers of an extraction get."""

from collections.abc import Mapping

import pytest

from ada2i.errors import ResourceError
from ada2i.extraction.config import resolve
from ada2i.jobs.resources import Placement, check_resources

pytest.importorskip("transformers")


def placed(available: Mapping[str, float], **overrides: object) -> Placement:
    return check_resources(resolve({}, overrides).resources, available, shared=True, group="")


def test_workers_share_the_gpus() -> None:
    assert placed({"CPU": 2.0}).device == "cpu"
    found = placed({"CPU": 2.0, "GPU": 1.0})
    assert (found.device, found.workers, found.gpus) == ("cuda", 2, 0.5)
    assert found.reason == "`workers` is 2; each has 0.5 of a GPU"
    assert placed({"CPU": 4.0, "GPU": 2.0}, workers=3).gpus == 0.5
    assert placed({"CPU": 4.0, "GPU": 1.0}, workers=3).gpus == 0.3333
    assert placed({"CPU": 4.0, "GPU": 1.0}, workers=2, gpus_per_worker=0.25).gpus == 0.25
    assert placed({"CPU": 2.0, "GPU": 2.0}).gpus == 1.0
    assert placed({"CPU": 2.0, "GPU": 2.0}, device="cpu").gpus == 0.0


def test_a_cluster_that_is_too_small_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"`workers` = 3 .* needs 3 CPUs, but the cluster has 2\. Request fewer"):
        placed({"CPU": 2.0}, workers=3)
    with pytest.raises(ResourceError, match=r"`device` = cuda needs 2 GPUs, but the cluster has 0"):
        placed({"CPU": 2.0}, device="cuda", gpus_per_worker=1.0)
    with pytest.raises(ResourceError, match=r"2 workers need 2 GPUs, 0\.75 per worker, but the cluster has 1\. Leave"):
        placed({"CPU": 2.0, "GPU": 1.0}, gpus_per_worker=0.75)
