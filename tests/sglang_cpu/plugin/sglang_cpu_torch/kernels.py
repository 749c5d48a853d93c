"""Plain-torch forms of the kernels that Qwen3.5 has only in Triton: slow and obvious, for tiny test models.

They are put into the modules that define the originals, before SGLang's model code imports them from there.
"""

import importlib
import itertools

import torch
import torch.nn.functional as F

MASK32 = 0xFFFFFFFF


def causal_conv1d_fn(
    x,
    weight,
    bias,
    conv_states,
    query_start_loc,
    seq_lens_cpu,
    cache_indices=None,
    has_initial_state=None,
    activation="silu",
    pad_slot_id=-1,
    **_,
):
    """Short causal convolution of packed sequences; the last inputs of each are left in `conv_states`."""
    width, out, starts = weight.shape[1], torch.empty_like(x), query_start_loc.tolist()
    for i, (low, high) in enumerate(itertools.pairwise(starts)):
        slot = int(cache_indices[i])
        if high == low or slot == pad_slot_id:
            continue
        known = has_initial_state is not None and bool(has_initial_state[i])
        state = conv_states[slot, :, : width - 1] if known else x.new_zeros(x.shape[0], width - 1)
        inputs = torch.cat([state.to(x.dtype), x[:, low:high]], -1)
        taps = weight[:, None].float()
        y = F.conv1d(inputs[None].float(), taps, None if bias is None else bias.float(), groups=x.shape[0])[0]
        out[:, low:high] = (F.silu(y) if activation in ("silu", "swish", True) else y).to(x.dtype)
        conv_states[slot, :, : width - 1] = inputs[:, -(width - 1) :].to(conv_states.dtype)
    return out


def causal_conv1d_update(
    x, conv_state, weight, bias=None, activation=None, cache_seqlens=None, conv_state_indices=None, **_
):
    """One step of the convolution for every row."""
    assert x.dim() == 2
    assert cache_seqlens is None
    width, slots = weight.shape[1], conv_state_indices[: x.shape[0]].long()
    inputs = torch.cat([conv_state[slots][:, :, : width - 1].to(x.dtype), x[:, :, None]], -1)
    y = (inputs.float() * weight.float()).sum(-1)
    if bias is not None:
        y = y + bias.float()
    conv_state[slots] = inputs[:, :, 1:].to(conv_state.dtype)
    return (F.silu(y) if activation in ("silu", "swish", True) else y).to(x.dtype)


def fused_gdn_gating(A_log, a, b, dt_bias, beta=1.0, threshold=20.0):
    """Log decay and rate of the delta rule."""
    decay = -A_log.float().exp() * F.softplus(a.float() + dt_bias.float(), beta, threshold)
    return decay[None], b.float().sigmoid()[None]


def _normalize(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def _step(state, q, k, v, decay, rate):
    """state [B, H, V, K]; q, k [B, H, K]; v [B, H, V]; decay, rate [B, H]."""
    state = state * decay.exp()[..., None, None]
    error = (v - (state @ k[..., None])[..., 0]) * rate[..., None]
    state = state + error[..., None] * k[..., None, :]
    return state, (state @ q[..., None])[..., 0]


def _heads(q, k, value_heads, scale):
    """Queries and keys, normalised, one for each value head."""
    group = value_heads // q.shape[-2]
    q, k = _normalize(q.float()), _normalize(k.float())
    return q.repeat_interleave(group, -2) * scale, k.repeat_interleave(group, -2)


def chunk_gated_delta_rule(
    q,
    k,
    v,
    g,
    beta,
    scale=None,
    initial_state=None,
    initial_state_indices=None,
    cu_seqlens=None,
    head_first=False,
    use_qk_l2norm_in_kernel=True,
    inplace_update=True,
    **_,
):
    """The delta rule over packed sequences, one token after the other."""
    assert use_qk_l2norm_in_kernel
    assert not head_first
    q, k = _heads(q[0], k[0], v.shape[2], k.shape[-1] ** -0.5 if scale is None else scale)
    out, starts = torch.empty_like(v), cu_seqlens.tolist()
    for i, (low, high) in enumerate(itertools.pairwise(starts)):
        slot = int(initial_state_indices[i])
        if slot < 0:
            continue
        state = initial_state[slot].float()[None]
        for t in range(low, high):
            now = (v[0, None, t].float(), g[0, None, t].float(), beta[0, None, t].float())
            state, y = _step(state, q[None, t], k[None, t], *now)
            out[0, t] = y[0].to(v.dtype)
        if inplace_update:
            initial_state[slot] = state[0].to(initial_state.dtype)
    return out, None, None


def fused_sigmoid_gating_delta_rule_update(
    A_log,
    dt_bias,
    q,
    k,
    v,
    a,
    b,
    initial_state_source,
    initial_state_indices,
    cu_seqlens=None,
    use_qk_l2norm_in_kernel=True,
    softplus_beta=1.0,
    softplus_threshold=20.0,
    disable_state_update=False,
    **_,
):
    """One token of the delta rule for every row."""
    assert not disable_state_update
    rows = q.shape[1]
    slots = initial_state_indices[:rows].long()
    decay, rate = fused_gdn_gating(A_log, a, b, dt_bias, softplus_beta, softplus_threshold)
    q, k = _heads(q[0], k[0], v.shape[2], k.shape[-1] ** -0.5)
    gates = (decay.reshape(rows, -1), rate.reshape(rows, -1))
    state, y = _step(initial_state_source[slots].float(), q, k, v[0].float(), *gates)
    initial_state_source[slots] = state.to(initial_state_source.dtype)
    return y[None].to(v.dtype)


def rms_norm_gated(
    *,
    x,
    weight,
    bias,
    z=None,
    eps=1e-6,
    group_size=None,
    norm_before_gate=True,
    is_rms_norm=False,
    activation="swish",
):
    """RMS norm, then the gate."""
    assert is_rms_norm
    assert norm_before_gate
    assert group_size in (None, x.shape[-1])
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps) * weight.float()
    if bias is not None:
        y = y + bias.float()
    if z is not None:
        gate = z.reshape(x.shape).float()
        y = y * (torch.sigmoid(gate) if activation == "sigmoid" else F.silu(gate))
    return y.to(x.dtype)


def rms_norm_gated_positional(
    x, g, weight, bias, activation="swish", residual=None, prenorm=False, residual_in_fp32=False, eps=1e-6
):
    """The same under the other module's signature."""
    assert residual is None
    assert not prenorm
    return rms_norm_gated(x=x, weight=weight, bias=bias, z=g, eps=eps, is_rms_norm=True, activation=activation)


def _zero_centred_norm(x, weight, eps):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps) * (1.0 + weight.float())).to(x.dtype)


def fused_qk_gemma_rmsnorm(q, k, q_weight, k_weight, eps, head_dim):
    q, k = q.reshape(-1, head_dim), k.reshape(-1, head_dim)
    return _zero_centred_norm(q, q_weight, eps), _zero_centred_norm(k, k_weight, eps)


def fused_qk_gemma_rmsnorm_with_gate(q_gate, k, q_weight, k_weight, eps, head_dim, num_heads):
    q, gate = q_gate.reshape(q_gate.shape[0], num_heads, 2 * head_dim).chunk(2, -1)
    normed = fused_qk_gemma_rmsnorm(q, k, q_weight, k_weight, eps, head_dim)
    return (*normed, gate.reshape(-1, head_dim).contiguous())


def fused_sigmoid_mul(attn_output, gate, inplace=False, quant=False):
    y = (attn_output.float() * gate.reshape(attn_output.shape).float().sigmoid()).to(attn_output.dtype)
    return attn_output.copy_(y) if inplace else y


def fused_qkvzba_split_reshape_cat_contiguous(mixed_qkvz, mixed_ba, num_heads_qk, num_heads_v, head_qk, head_v):
    """Qwen3.5: [q | k | v | z] and [b | a], each contiguous."""
    rows, qk, v = mixed_qkvz.shape[0], num_heads_qk * head_qk, num_heads_v * head_v
    return (
        mixed_qkvz[:, : 2 * qk + v].contiguous(),
        mixed_qkvz[:, 2 * qk + v :].reshape(rows, num_heads_v, head_v).contiguous(),
        mixed_ba[:, :num_heads_v].contiguous(),
        mixed_ba[:, num_heads_v:].contiguous(),
    )


def _launch_fused_gate_sigmoid_mul(hidden_states, gate_weight, shared_output, output, *, do_add):
    """The gated shared expert, added to the routed ones."""
    y = (hidden_states.float() @ gate_weight.float()).sigmoid()[:, None] * shared_output.float()
    output.copy_(output.float() + y if do_add else y)


def murmur_hash32(seed, positions, col_indices):
    """MurmurHash3 of (seed, position, column) as 32 bits: the counters of seeded sampling."""

    def mix(h, k):
        k = k * 0xCC9E2D51 & MASK32
        k = (k << 15 | k >> 17) & MASK32
        h = h ^ (k * 0x1B873593 & MASK32)
        h = (h << 13 | h >> 19) & MASK32
        return (h * 5 + 0xE6546B64) & MASK32

    seed = seed.view(torch.int64)
    h = mix(mix(torch.zeros_like(seed), seed & MASK32), seed >> 32 & MASK32)
    h = mix(h, positions.to(torch.int64) & MASK32)
    h = mix(h[:, None], col_indices.to(torch.int64)[None] & MASK32) ^ 16
    h = (h ^ h >> 16) * 0x85EBCA6B & MASK32
    h = (h ^ h >> 13) * 0xC2B2AE35 & MASK32
    return (h ^ h >> 16).to(torch.uint32)


REPLACED = {
    "sglang.kernels.ops.mamba.causal_conv1d_triton": (causal_conv1d_fn, causal_conv1d_update),
    "sglang.kernels.ops.attention.linear.fused_gdn_gating": (fused_gdn_gating,),
    "sglang.kernels.ops.attention.fla.chunk": (chunk_gated_delta_rule,),
    "sglang.kernels.ops.attention.linear.fused_sigmoid_gating_recurrent": (fused_sigmoid_gating_delta_rule_update,),
    "sglang.kernels.ops.attention.fla.layernorm_gated": (rms_norm_gated,),
    "sglang.kernels.ops.elementwise.elementwise": (fused_sigmoid_mul, _launch_fused_gate_sigmoid_mul),
    "sglang.kernels.ops.attention.triton_gdn_fused_proj": (fused_qkvzba_split_reshape_cat_contiguous,),
    "sglang.srt.layers.sampler": (murmur_hash32,),
    "sglang.srt.models.utils": (fused_qk_gemma_rmsnorm, fused_qk_gemma_rmsnorm_with_gate),
}


def install():
    """Put every function above in the place of its namesake. A name that is gone means another sglang."""
    for name, functions in REPLACED.items():
        module = importlib.import_module(name)
        for function in functions:
            known = hasattr(module, function.__name__)
            assert known, f"{name} no longer defines {function.__name__}: this plugin was written for sglang 0.5.23"
            setattr(module, function.__name__, function)
    gate = importlib.import_module("sglang.kernels.ops.attention.fla.fused_norm_gate")
    gate.rms_norm_gated = rms_norm_gated_positional
