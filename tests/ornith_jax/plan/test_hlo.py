"""Bytes read from compiled programs: of a small one whose collectives are known, and of the forms that TPUs have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ornith_jax.plan.hlo import collective_bytes, memory_traffic, read
from ornith_jax.sharding import make_mesh


def test_collectives_of_a_small_program_are_counted_as_often_as_their_loop_runs():
    mesh = make_mesh({"fsdp": 8})
    spec = PartitionSpec("fsdp")

    def local(x):  # [4, 16] float32 of a shard
        def step(x, _):
            whole = jax.lax.all_gather(x, "fsdp", axis=0, tiled=True)  # 32 x 16 x 4 bytes
            part = jax.lax.psum_scatter(whole * 2, "fsdp", scatter_dimension=0, tiled=True)  # the same
            return part + jax.lax.psum(x.sum(), "fsdp"), None  # 2 x 4 bytes

        x, _ = jax.lax.scan(step, x, None, length=5)
        return jax.lax.all_to_all(x, "fsdp", 1, 1, tiled=True)  # 4 x 16 x 4 bytes

    run = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=NamedSharding(mesh, spec))
    found = collective_bytes(read(run.lower(x).compile().as_text()))
    assert found == {
        "all-gather": 5 * 32 * 16 * 4,
        "reduce-scatter": 5 * 32 * 16 * 4,
        "all-reduce": 5 * 2 * 4,
        "all-to-all": 4 * 16 * 4,
    }


TPU_TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[8,64]) -> f32[8,16] {
  %input = f32[8,64]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[8,64]{1,0:T(8,128)} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
  %zero = u32[] constant(0)
  ROOT %dynamic-slice.1 = f32[8,16]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %zero, %zero)
}

%update (whole: f32[3,8,16], part: f32[8,16], at: s32[]) -> f32[3,8,16] {
  %whole = f32[3,8,16]{2,1,0:T(8,128)} parameter(0)
  %part = f32[8,16]{1,0:T(8,128)S(1)} parameter(1)
  %at = s32[]{:T(128)} parameter(2)
  %one = f32[1,8,16]{2,1,0:T(8,128)} bitcast(%part)
  %nought = s32[]{:T(128)} constant(0)
  ROOT %dynamic-update-slice.1 = f32[3,8,16]{2,1,0:T(8,128)} dynamic-update-slice(%whole, %one, %at, %nought, %nought)
}

%condition (state: (s32[], f32[3,8,16])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  %state = (s32[]{:T(128)}, f32[3,8,16]{2,1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (state.1: (s32[], f32[3,8,16])) -> (s32[], f32[3,8,16]) {
  %state.1 = (s32[]{:T(128)}, f32[3,8,16]{2,1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %x.1 = f32[3,8,16]{2,1,0:T(8,128)} get-tuple-element(%state.1), index=1
  %big = f32[8,64]{1,0:T(8,128)} broadcast(%i.1), dimensions={}
  %scattered = f32[8,16]{1,0:T(8,128)S(1)} fusion(%big), kind=kCustom, calls=%all-reduce-scatter.1, metadata={}
  %placed = f32[3,8,16]{2,1,0:T(8,128)} fusion(%x.1, %scattered, %i.1), kind=kLoop, calls=%update, metadata={}
  ROOT %next = (s32[]{:T(128)}, f32[3,8,16]{2,1,0:T(8,128)}) tuple(%i.1, %placed)
}

ENTRY %main (p: f32[3,8,16], rows: bf16[32,8]) -> f32[3,8,16] {
  %p = f32[3,8,16]{2,1,0:T(8,128)} parameter(0)
  %rows = bf16[32,8]{1,0:T(8,128)(2,1)} parameter(1)
  %room = bf16[40,8]{1,0:T(8,128)(2,1)} broadcast(%rows), dimensions={}
  %offsets = s32[4]{0:T(128)} iota(), iota_dimension=0
  %moved = bf16[40,8]{1,0:T(8,128)(2,1)} ragged-all-to-all(%rows, %room, %offsets, %offsets, %offsets, %offsets)
  %kernel = bf16[40,8]{1,0:T(8,128)(2,1)} custom-call(%moved), backend_config={"custom_call_config": {
"xprof_metadata":"{}"
}}, metadata={op_name="a kernel's own lines"}
  %zero.1 = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[3,8,16]{2,1,0:T(8,128)}) tuple(%zero.1, %p)
  %while.1 = (s32[]{:T(128)}, f32[3,8,16]{2,1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[3,8,16]{2,1,0:T(8,128)} get-tuple-element(%while.1), index=1
}
"""


def test_a_tpu_program_scatters_in_a_fusion_and_exchanges_rows_not_room():
    found = collective_bytes(read(TPU_TEXT))
    assert found == {"ragged-all-to-all": 32 * 8 * 2, "reduce-scatter": 3 * 8 * 64 * 4}


def test_memory_traffic_counts_updates_in_place_by_the_update_and_on_chip_results_not_at_all():
    once = 3 * 40 * 8 * 2  # room, moved and the kernel's result
    in_loop = 3 * (8 * 64 * 4 + 8 * 16 * 4)  # big, and the part that is placed; the scattered one stays on the chip
    assert memory_traffic(read(TPU_TEXT)) == 2 * (once + in_loop)


def test_what_is_no_program_is_refused():
    with pytest.raises(AssertionError, match="not the text of an XLA program"):
        read("nothing")
