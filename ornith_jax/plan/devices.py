"""Devices that are not there, to compile for. Called in a process of its own: libtpu takes one client per process."""

from __future__ import annotations

from typing import Any

from jax.experimental import topologies

from ornith_jax.errors import OrnithError
from ornith_jax.plan.topology import HOST_GPUS, Topology

TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server is asked what machine this is
    "TPU_ACCELERATOR_TYPE": "v5p-8",  # any: the topology is named to the compiler
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is held, so several compilations need not take turns
}

GPU_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {l2} device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
runtime_version {{ major: 13 }}
dnn_version_info {{ major: 9 minor: 10 patch: 2 }}
device_description_str: "{name}"
"""
"""What XLA wants to know of a Hopper GPU (NVIDIA H100 and H200 data sheets; CUDA programming guide, capability 9.0)."""


def make_devices(topology: Topology) -> list[Any]:
    """Compile-only devices. Raises OrnithError when the compiler is not installed, or knows no such slice."""
    chip = topology.chip
    if chip.platform == "tpu":
        try:
            return list(topologies.get_topology_desc(platform="tpu", topology_name=topology.name).devices)
        except (RuntimeError, ValueError) as error:
            if "not installed" in str(error):
                raise OrnithError(
                    f"topology {topology.name}: no TPU compiler; pip install 'ornith-jax[plan]' (libtpu)"
                ) from None
            raise OrnithError(f"topology {topology.name}: libtpu refuses it: {str(error).splitlines()[0]}") from None
    target = GPU_TARGET.format(
        bandwidth=int(chip.hbm_bandwidth),
        l2=50 * 2**20,
        memory=chip.hbm_bytes,
        name=f"NVIDIA {topology.chip_name.upper()}",
    )
    hosts = max(1, topology.num_devices // HOST_GPUS)
    shape = f"1x{hosts}x{topology.num_devices // hosts}"
    try:
        return list(topologies.get_topology_desc(platform="cuda", target_config=target, topology=shape).devices)
    except NotImplementedError:
        raise OrnithError(
            f"topology {topology.name}: no CUDA compiler; pip install 'ornith-jax[plan-gpu]' "
            "(jax-cuda13-plugin, of the version of jax)"
        ) from None
