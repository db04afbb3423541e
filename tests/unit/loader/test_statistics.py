"""Means and deviations against numpy's, over any blocks; a constant has none."""

import numpy as np
import pytest

from ada2i.loader.statistics import block_sums, mean_and_deviation


def test_against_numpy() -> None:
    random = np.random.RandomState(0)
    values = (random.standard_normal((10_000, 3)) * [1.0, 5.0, 0.1] + [0.0, 100.0, -3.0]).astype(np.float32)
    present = random.random_sample(10_000) > 0.3
    shards = [(values[:4500], present[:4500]), (values[4500:4501], present[4500:4501]), (values[4501:], present[4501:])]
    mean, deviation = mean_and_deviation(block_sums(*shard) for shard in shards)
    assert mean == pytest.approx(values[present].astype(np.float64).mean(axis=0), rel=1e-6)
    assert deviation == pytest.approx(values[present].astype(np.float64).std(axis=0), rel=1e-5)
    assert mean.dtype == deviation.dtype == np.float32


def test_constants_and_nothing_at_all() -> None:
    same = np.full((5000, 2), 0.1, np.float32)
    mean, deviation = mean_and_deviation([block_sums(same, np.ones(5000, np.bool_))])
    assert mean.tolist() == same[0].tolist()
    assert deviation.tolist() == [0.0, 0.0]
    mean, deviation = mean_and_deviation([block_sums(same, np.zeros(5000, np.bool_))])
    assert mean.tolist() == deviation.tolist() == [0.0, 0.0]
