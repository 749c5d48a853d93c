"""From the compiler's answer to time: compute, memory and links, each at its full rate.

compute: operations at the peak rate. memory: results of the compiled program, written and read at the full rate of
HBM. links: collective bytes at the full rate of all links. If all three overlap perfectly, a step takes as long as the
longest; if nothing overlaps, their sum. No part ever runs at its full rate, so a real step may take longer than that.
"""

from __future__ import annotations

from dataclasses import dataclass

from ornith_jax.config import ModelConfig
from ornith_jax.experiment import Experiment
from ornith_jax.plan.compile import Compiled
from ornith_jax.plan.flops import cache_bytes, decode_flops, forward_flops
from ornith_jax.plan.topology import Topology

FLOAT32_PASSES = 6  # bfloat16 products that make one float32 product on a TPU's matrix unit ("highest" precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds of one step; mfu counts the model's own operations, without recomputation.

    step_s, mfu: everything overlaps. serial_s, serial_mfu: nothing does.
    """

    tokens: int
    model_flops: float  # of all devices
    hardware_flops: float
    compute_s: float
    memory_s: float
    links_s: float
    step_s: float
    serial_s: float
    mfu: float
    serial_mfu: float


def train_estimate(cfg: ModelConfig, experiment: Experiment, topology: Topology, compiled: Compiled) -> Estimate:
    """Training: three forward passes of operations per token, four with full remat; sequences fill their rows."""
    train, loss = experiment.train, experiment.loss
    tokens = train.accumulation * train.rows * train.seq_len
    forward = forward_flops(cfg, train.seq_len)
    head = 2 * cfg.vocab_size * cfg.embed_dim
    passes = 4 if train.remat == "full" else 3
    # The loss works in blocks and computes its logits once more in the backward pass, whatever remat says.
    hardware = passes * (forward - head) + 4 * head * (FLOAT32_PASSES if loss.float32_head else 1)
    return _floors(topology, compiled, tokens, 3 * forward * tokens, hardware * tokens, compiled.traffic)


def decode_estimate(cfg: ModelConfig, experiment: Experiment, topology: Topology, compiled: Compiled) -> Estimate:
    """One token for every slot, caches half full: weights and caches are read once, whatever the program writes."""
    engine = experiment.engine
    context = engine.max_len // 2
    flops = engine.slots * decode_flops(cfg, context)
    live = compiled.arguments["cache"] * cache_bytes(cfg, context) / cache_bytes(cfg, engine.max_len)
    return _floors(topology, compiled, engine.slots, flops, flops, compiled.arguments["parameters"] + live)


def _floors(
    topology: Topology, compiled: Compiled, tokens: int, model: float, hardware: float, traffic: float
) -> Estimate:
    chip, devices = topology.chip, topology.num_devices
    compute = hardware / (devices * chip.peak_flops)
    memory = traffic / chip.hbm_bandwidth
    links = sum(compiled.collectives.values()) / topology.link
    step, serial = max(compute, memory, links), compute + memory + links
    peak = devices * chip.peak_flops
    return Estimate(
        tokens=tokens,
        model_flops=model,
        hardware_flops=hardware,
        compute_s=compute,
        memory_s=memory,
        links_s=links,
        step_s=step,
        serial_s=serial,
        mfu=model / (step * peak),
        serial_mfu=model / (serial * peak),
    )
