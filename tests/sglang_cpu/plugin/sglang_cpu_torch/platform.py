"""The platform: what SGLang asks about a device, answered for plain torch on a CPU."""

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import PlatformCapabilities, SRTPlatform


def _allocate(dims, dtype, device, pin_memory, allocator, registration_granularity_bytes=None):
    """Host memory is the device: there is nothing to pin."""
    return torch.empty(dims, dtype=dtype, device=device)


class CpuTorchPlatform(CpuDeviceMixin, SRTPlatform):
    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"
    capabilities = PlatformCapabilities()  # no Triton, no graphs

    def get_default_attention_backend(self):
        return "torch_native"

    def get_dispatch_key_name(self):
        return "native"

    def is_pin_memory_available(self, device=None):
        return False

    def init_backend(self):
        from sglang.srt import batch_invariant_ops
        from sglang.srt.mem_cache.pool_host.common import ALLOC_MEMORY_FUNCS

        from sglang_cpu_torch import kernels

        ALLOC_MEMORY_FUNCS["cpu"] = _allocate  # used by the capturer of routed experts
        # Deterministic inference would swap in batch-invariant Triton operators: keep torch's, take the rest of it.
        batch_invariant_ops.enable_batch_invariant_mode = lambda *args, **kwargs: None
        kernels.install()

    def post_load_model(self, model):
        from sglang.srt.layers.attention.linear.kernels.gdn_triton import TritonGDNKernel

        TritonGDNKernel.supports_packed_decode = False  # the packed decode kernel is Triton; take the split path
