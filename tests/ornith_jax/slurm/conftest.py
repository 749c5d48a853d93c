"""A private Slurm of six nodes for the tests of this folder that need one: up in two seconds, once it is installed."""

import os

import pytest

from tests.slurm_local.cluster import Cluster, running
from tests.slurm_local.config import Shape


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, worker_id) -> Cluster:
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    shape = Shape(port=21800 + 1000 * number)
    with running(tmp_path_factory.mktemp("slurm"), shape) as started:
        before = os.environ.get("SLURM_CONF")
        os.environ |= started.environment
        yield started
        os.environ.pop("SLURM_CONF")
        if before:
            os.environ["SLURM_CONF"] = before
