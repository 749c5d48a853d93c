"""Experts spread over the mesh: rows travel to the device of their expert and back, and none is ever dropped.

Every device sorts its own pairs by expert; the counts of all devices, gathered once, say where each row goes. The rows
meant for one device form one line, sorted by expert. Each round moves the next R rows of every line: ceil(line / R)
rounds, so any routing is served exactly, and no buffer depends on how uneven it is. R is SLACK x P: one round when no
device gets more than SLACK times the mean, S / SLACK rounds when one device gets everything.

Memory per device and round, in rows of D: P sorted, P results, and R received, besides the hidden rows of R. The
backward pass repeats the rounds (the received rows are not kept) and needs 2 R more.

S devices along `expert`, E experts, L = E / S experts of a device, M tokens of a device, X experts per token,
P = M * X pairs, D model width, I expert width.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ornith_jax.nn.experts import by_expert, grouped_mlp
from ornith_jax.nn.mlp import Activation
from ornith_jax.nn.ragged import Slices, exchange
from ornith_jax.params import Params
from ornith_jax.sharding import MESH_AXES, batch_spec

SLACK = 1.25

WIDTH = ("fsdp", "context")  # the axes that split D of an expert's weights
GATE_UP = PartitionSpec("expert", None, "tensor", WIDTH)
DOWN = PartitionSpec("expert", WIDTH, "tensor")


def expert_parallel(
    params: Params, x_BTD: jax.Array, weights_BTX: jax.Array, experts_BTX: jax.Array, act: Activation, mesh: Mesh
) -> jax.Array:
    """[B, T, D], as `experts_reference` on all tokens at once. Arrays are global; `params` as by `experts_specs`."""
    tokens = batch_spec()
    run = jax.shard_map(
        partial(_on_each_device, act=act, mesh=mesh),
        mesh=mesh,
        in_specs=(GATE_UP, DOWN, tokens, tokens, tokens),
        out_specs=tokens,
    )
    return run(params["gate_up"], params["down"], x_BTD, weights_BTX, experts_BTX)


def _on_each_device(
    gate_up: jax.Array,
    down: jax.Array,
    x_BTD: jax.Array,
    weights_BTX: jax.Array,
    experts_BTX: jax.Array,
    act: Activation,
    mesh: Mesh,
) -> jax.Array:
    """The shards of one device: weights are gathered over `fsdp`, and what `tensor` splits is summed at the end."""
    dtype, S = x_BTD.dtype, mesh.shape["expert"]
    # From here on everything is typed as different on every device. Gradients are summed where these casts are: over
    # `tensor` for the rows; for the weights over `data`, once the gathers scattered them over `fsdp` and `context`.
    gate_up, down = (jax.lax.pcast(w.astype(dtype), "data", to="varying") for w in (gate_up, down))
    gate_up = jax.lax.all_gather(gate_up, WIDTH, axis=3, tiled=True)
    down = jax.lax.all_gather(down, WIDTH, axis=1, tiled=True)
    x_BTD, weights_BTX, experts_BTX = (
        jax.lax.pcast(x, "tensor", to="varying") for x in (x_BTD, weights_BTX, experts_BTX)
    )

    def product(rows_PD: jax.Array, sizes_E: jax.Array) -> jax.Array:
        if S == 1:
            return grouped_mlp(gate_up, down, rows_PD, sizes_E, act)
        return _remote_mlp(gate_up, down, rows_PD, sizes_E, act)

    D, X = x_BTD.shape[-1], weights_BTX.shape[-1]
    y_MD = by_expert(
        x_BTD.reshape(-1, D), weights_BTX.reshape(-1, X), experts_BTX.reshape(-1, X), S * down.shape[0], product
    )
    return jax.lax.psum(y_MD, "tensor").reshape(x_BTD.shape)


class Plan(NamedTuple):
    """Rows per (sending device, expert), where they start in the sender's rows and in the receiver's line."""

    counts_SE: jax.Array
    offset_SE: jax.Array
    start_SE: jax.Array
    rounds: jax.Array


def _plan(sizes_E: jax.Array, window: int) -> Plan:
    counts_SE = jax.lax.all_gather(sizes_E, "expert")
    S = counts_SE.shape[0]
    counts_SDL = counts_SE.reshape(S, S, -1)
    line_DL = jnp.sum(counts_SDL, axis=0)
    first_DL = jnp.cumsum(line_DL, axis=1) - line_DL
    start_SDL = first_DL[None] + jnp.cumsum(counts_SDL, axis=0) - counts_SDL
    longest = jnp.max(jnp.sum(line_DL, axis=1))
    # The same on all devices, also on those that exchange nothing with each other: then no collective can wait for
    # one that another device never starts, and its type says so.
    rounds = jax.lax.pmax((longest + window - 1) // window, MESH_AXES)
    return Plan(counts_SE, jnp.cumsum(counts_SE, axis=1) - counts_SE, start_SDL.reshape(counts_SE.shape), rounds)


def _round(plan: Plan, r: jax.Array, window: int) -> tuple[Slices, Slices, jax.Array]:
    """(slices on the way out, on the way back, received rows per local expert [L]) of round r."""
    S, me = plan.counts_SE.shape[0], jax.lax.axis_index("expert")
    low_SE = jnp.clip(r * window - plan.start_SE, 0, plan.counts_SE)
    size_SE = jnp.clip((r + 1) * window - plan.start_SE, 0, plan.counts_SE) - low_SE
    here_SE = jnp.where(size_SE > 0, plan.offset_SE + low_SE, 0)
    there_SE = jnp.where(size_SE > 0, plan.start_SE + low_SE - r * window, 0)

    def mine(x_SE: jax.Array) -> jax.Array:  # [S, L], what concerns the experts of this device
        return x_SE.reshape(S, S, -1)[:, me]

    size_SL = mine(size_SE)
    out = Slices(here_SE[me], size_SE[me], there_SE[me], size_SL.reshape(-1))
    back = Slices(mine(there_SE).reshape(-1), size_SL.reshape(-1), mine(here_SE).reshape(-1), size_SE[me])
    return out, back, jnp.sum(size_SL, axis=0)


def _window(num_rows: int, S: int) -> int:
    return min(-(-int(SLACK * num_rows) // 8) * 8, S * num_rows)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _remote_mlp(
    gate_up: jax.Array, down: jax.Array, rows_PD: jax.Array, sizes_E: jax.Array, act: Activation
) -> jax.Array:
    """`grouped_mlp` of sorted rows whose experts, L on each device, live along the mesh axis `expert`."""
    return _forward(gate_up, down, rows_PD, sizes_E, act)[0]


def _forward(gate_up, down, rows_PD, sizes_E, act):  # type: ignore[no-untyped-def]
    window = _window(rows_PD.shape[0], sizes_E.shape[0] // down.shape[0])
    plan = _plan(sizes_E, window)
    blank_RD = jax.lax.full_like(rows_PD, 0, shape=(window, rows_PD.shape[1]))

    def step(carry):  # type: ignore[no-untyped-def]
        r, out_PD = carry
        out, back, sizes_L = _round(plan, r, window)
        made_RD = grouped_mlp(gate_up, down, exchange(rows_PD, blank_RD, out), sizes_L, act)
        return r + 1, exchange(made_RD, out_PD, back)

    start = (jnp.int32(0), jnp.zeros_like(rows_PD))
    _, out_PD = jax.lax.while_loop(lambda carry: carry[0] < plan.rounds, step, start)
    return out_PD, (gate_up, down, rows_PD, plan)


def _backward(act, saved, dout_PD):  # type: ignore[no-untyped-def]
    gate_up, down, rows_PD, plan = saved
    window = _window(rows_PD.shape[0], plan.counts_SE.shape[0])
    blank_RD = jax.lax.full_like(rows_PD, 0, shape=(window, rows_PD.shape[1]))

    def step(carry):  # type: ignore[no-untyped-def]
        r, drows_PD, dgate_up, ddown = carry
        out, back, sizes_L = _round(plan, r, window)
        rows_RD, dout_RD = exchange(rows_PD, blank_RD, out), exchange(dout_PD, blank_RD, out)
        _, pull = jax.vjp(lambda g, d, x: grouped_mlp(g, d, x, sizes_L, act), gate_up, down, rows_RD)
        g, d, drows_RD = pull(dout_RD)
        return r + 1, exchange(drows_RD, drows_PD, back), dgate_up + g, ddown + d

    zeros = [jnp.zeros_like(x) for x in (rows_PD, gate_up, down)]
    carry = jax.lax.while_loop(lambda carry: carry[0] < plan.rounds, step, (jnp.int32(0), *zeros))
    _, drows_PD, dgate_up, ddown = carry
    return dgate_up, ddown, drows_PD, None


_remote_mlp.defvjp(_forward, _backward)
