"""Whether a cluster can hold an extraction."""

import pytest

from ada2i.errors import ResourceError
from ada2i.extraction import job
from ada2i.extraction.config import resolve

pytest.importorskip("transformers")


def test_a_gpu_for_each_worker_is_used_or_none() -> None:
    config = resolve({}, {"workers": 2})
    assert job._wait_for_resources(config, lambda: {"CPU": 2.0}) is False
    assert job._wait_for_resources(config, lambda: {"CPU": 2.0, "GPU": 1.0}) is False
    assert job._wait_for_resources(config, lambda: {"CPU": 2.0, "GPU": 2.0}) is True
    plain = resolve({}, {"workers": 2, "device": "cpu"})
    assert job._wait_for_resources(plain, lambda: {"CPU": 2.0, "GPU": 2.0}) is False


def test_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_REPLACEMENT_SECONDS", 0.0)
    with pytest.raises(ResourceError, match=r"`workers` = 3 needs as many CPUs, but the cluster has 2\. Ask for fewer"):
        job._wait_for_resources(resolve({}, {"workers": 3}), lambda: {"CPU": 2.0})
    with pytest.raises(ResourceError, match=r"`device` = cuda needs 2 GPUs, one per worker, but the cluster has 1"):
        job._wait_for_resources(resolve({}, {"device": "cuda"}), lambda: {"CPU": 2.0, "GPU": 1.0})
