"""Whether a cluster can hold an extraction."""

import pytest

from ada2i.errors import ResourceError
from ada2i.extraction import job
from ada2i.extraction.config import resolve

pytest.importorskip("transformers")


def test_a_gpu_for_each_worker_is_used_or_none() -> None:
    config = resolve({}, {"workers": 2})
    assert job.check_workers(config, {"CPU": 2.0}) is False
    assert job.check_workers(config, {"CPU": 2.0, "GPU": 1.0}) is False
    assert job.check_workers(config, {"CPU": 2.0, "GPU": 2.0}) is True
    plain = resolve({}, {"workers": 2, "device": "cpu"})
    assert job.check_workers(plain, {"CPU": 2.0, "GPU": 2.0}) is False


def test_a_cluster_that_is_too_small_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"`workers` = 3 needs as many CPUs, but the cluster has 2\. Request fewer"):
        job.check_workers(resolve({}, {"workers": 3}), {"CPU": 2.0})
    with pytest.raises(ResourceError, match=r"`device` = cuda needs 2 GPUs, one per worker, but the cluster has 1"):
        job.check_workers(resolve({}, {"device": "cuda"}), {"CPU": 2.0, "GPU": 1.0})
