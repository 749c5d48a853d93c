"""A platform plugin for SGLang: plain torch on any CPU. No sgl_kernel, no Triton launch, no AVX512.

SGLang's own CPU platform needs a build of sgl_kernel that no registry carries. A platform from outside, without
Triton and with the dispatch key "native", takes the pure-torch reference of every fused operation instead. It is
selected by SGLANG_PLATFORM=cpu_torch. For tests with tiny models; written for sglang 0.5.23.
"""

import torch


def _declare_torchvision_ops() -> torch.library.Library:
    """Published torchvision is linked to CUDA: beside a CPU torch its operators never register and its import fails.

    Declared beforehand, the pure-Python rest of it imports.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        for op in ("nms", "qnms"):
            library.define(op + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:  # a torchvision for CPUs did register them
        pass
    return library


_library = _declare_torchvision_ops()  # the declarations live as long as this object


def activate() -> str:
    """SGLang's extension point. Also admits seeded sampling and the prefix cache with torch's own attention."""
    from sglang.srt.arg_groups import choices

    choices.add_deterministic_attention_backend_choices(["torch_native"])
    choices.add_radix_supported_deterministic_attention_backend_choices(["torch_native"])
    return "sglang_cpu_torch.platform.CpuTorchPlatform"
