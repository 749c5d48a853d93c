"""What `ornith plan` prints: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ornith_jax.config import ModelConfig
from ornith_jax.experiment import Experiment
from ornith_jax.plan.compile import Compiled
from ornith_jax.plan.estimate import Estimate, decode_estimate, train_estimate
from ornith_jax.plan.topology import GIB, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One experiment on one slice. `estimate` is None when it does not fit."""

    experiment: Experiment
    topology: Topology
    decode: bool
    compiled: Compiled
    estimate: Estimate | None

    @property
    def room(self) -> int:
        """Bytes left on each device; negative: what is missing."""
        return self.topology.chip.hbm_bytes - self.compiled.needed

    @property
    def fits(self) -> bool:
        return self.compiled.complete and self.room >= 0


def make_plan(
    cfg: ModelConfig, experiment: Experiment, topology: Topology, compiled: Compiled, *, decode: bool
) -> Plan:
    estimate = None
    if compiled.complete:
        estimate = (decode_estimate if decode else train_estimate)(cfg, experiment, topology, compiled)
    return Plan(experiment=experiment, topology=topology, decode=decode, compiled=compiled, estimate=estimate)


def layer_inputs(cfg: ModelConfig, experiment: Experiment) -> int:
    """Bytes per device that full remat keeps: the bfloat16 (or other) input of every layer."""
    mesh, train = experiment.mesh, experiment.train
    tokens = train.rows * train.seq_len // (mesh.data * mesh.fsdp * mesh.expert * mesh.context)
    return cfg.num_layers * tokens * cfg.embed_dim * (4 if train.dtype == "float32" else 2)


def render(plan: Plan, cfg: ModelConfig) -> str:
    """A page of text."""
    return "\n".join([*_header(plan), "", *_memory(plan, cfg), "", *_time(plan), "", *_cost(plan)])


def to_json(plan: Plan) -> str:
    """The same as one JSON object; bytes per device, seconds, operations of all devices."""
    return json.dumps(
        {
            "experiment": asdict(plan.experiment),
            "topology": plan.topology.name,
            "devices": plan.topology.num_devices,
            "decode": plan.decode,
            "fits": plan.fits,
            "room": plan.room,
            "hbm_bytes": plan.topology.chip.hbm_bytes,
            "compiled": asdict(plan.compiled),
            "estimate": None if plan.estimate is None else asdict(plan.estimate),
        }
    )


def mesh_text(experiment: Experiment) -> str:
    """ "fsdp 8 x expert 32" """
    return " x ".join(f"{axis} {n}" for axis, n in asdict(experiment.mesh).items() if n > 1) or "one device"


def _header(plan: Plan) -> list[str]:
    experiment, train, engine = plan.experiment, plan.experiment.train, plan.experiment.engine
    if plan.decode:
        what = f"decoding, {engine.slots} sequences of up to {engine.max_len:,} tokens, {engine.dtype}"
    else:
        what = f"train step, {train.accumulation} x {train.rows} rows of {train.seq_len:,} tokens, remat {train.remat}"
    verdict = f"fits, {_gib(plan.room)} to spare" if plan.fits else f"does NOT fit: {_gib(-plan.room)} too much"
    return [
        f"{experiment.name} ({experiment.model}) on {plan.topology.name}: {plan.topology.num_devices} devices, "
        f"{mesh_text(experiment)}",
        what,
        f"{verdict} (of {_gib(plan.topology.chip.hbm_bytes)} per device)",
    ]


def _memory(plan: Plan, cfg: ModelConfig) -> list[str]:
    compiled = plan.compiled
    lines = ["bytes per device"] + [_row(kind, size) for kind, size in compiled.arguments.items()]
    if not compiled.complete:
        return [*lines, _row("needed in all", compiled.needed) + "   (says XLA, which gave up)"]
    padding = compiled.argument_bytes - sum(compiled.arguments.values())
    lines.append(_row("padding of layouts", max(padding, 0)))
    if not plan.decode:
        kept = _row("kept for backward", layer_inputs(cfg, plan.experiment))
        lines.append(f"{kept}   (inputs of layers, by formula; part of the temporaries)")
    lines.append(_row("temporaries", compiled.temporary_bytes) + "   (activations, gradients, gathered weights)")
    return [*lines, _row("program", compiled.code_bytes), _row("needed in all", compiled.needed)]


def _time(plan: Plan) -> list[str]:
    if plan.estimate is None:
        return ["no estimate of time: the program was not compiled to its end"]
    e, compiled = plan.estimate, plan.compiled
    lines = [
        "one step, every part at its full rate (chip figures: plan/topology.py)",
        f"  compute  {e.compute_s:9.4f} s   {e.hardware_flops:.3g} operations on all devices, recomputation included",
        f"  memory   {e.memory_s:9.4f} s   {compiled.traffic / 1e9:,.1f} GB of results per device",
        f"  links    {e.links_s:9.4f} s   {sum(compiled.collectives.values()) / 1e9:,.1f} GB per device: "
        + (", ".join(f"{kind} {size / 1e9:,.1f}" for kind, size in compiled.collectives.items()) or "none"),
        f"  step     {e.step_s:9.4f} s if all overlap, {e.serial_s:.4f} s if nothing does: "
        f"{e.tokens / e.step_s:,.0f} to {e.tokens / e.serial_s:,.0f} tokens/s",
    ]
    mfu = f"  MFU      {e.mfu:9.1%} to {e.serial_mfu:.1%}   (3 x forward, {e.model_flops:.3g} operations)"
    return lines if plan.decode else [*lines, mfu]


def _cost(plan: Plan) -> list[str]:
    c = plan.compiled
    return [
        f"compiled in {c.compile_seconds:,.0f} s ({c.cpu_seconds:,.0f} s of CPU, {c.host_bytes / 1e9:.1f} GB of memory)"
    ]


def _row(kind: str, size: int) -> str:
    return f"  {kind:<20} {_gib(size):>12}"


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f} GiB"
