"""Bytes by kind, computed from shapes and shardings, against arrays that really lie on 8 simulated devices."""

from __future__ import annotations

from dataclasses import replace

import jax
import pytest

from ornith_jax.experiment import EngineSettings, Experiment, LossSettings, MeshSettings, OptimSettings, TrainSettings
from ornith_jax.models import decoder
from ornith_jax.models.named import NAMED
from ornith_jax.plan.program import abstract_batches, abstract_cache, bytes_per_device, decode_program
from ornith_jax.train.state import abstract_state, init_state, mesh_of

TINY = Experiment(
    name="tiny",
    model="tiny-qwen3.5-moe",
    mesh=MeshSettings(fsdp=2, expert=2, tensor=2),
    optim=OptimSettings(moment_dtype="bfloat16"),
    train=TrainSettings(seq_len=64, rows=4, accumulation=2),
    engine=EngineSettings(slots=4, max_len=64),
)


def on_first_device(tree) -> int:
    """Bytes that really lie on the first device."""
    first = jax.devices()[0]
    return sum(
        shard.data.nbytes for x in jax.tree.leaves(tree) for shard in x.addressable_shards if shard.device == first
    )


def test_parameters_and_optimizer_take_what_is_computed():
    cfg, mesh = NAMED[TINY.model], mesh_of(TINY)
    state, shapes = init_state(cfg, TINY, mesh), abstract_state(cfg, TINY, mesh)
    assert bytes_per_device(shapes.params) == on_first_device(state.params)
    assert bytes_per_device(shapes.opt_state) == on_first_device(state.opt_state)
    # Two bfloat16 moments take what one float32 parameter does, but for the frozen router's, which has none.
    assert 0.9 < on_first_device(state.opt_state) / on_first_device(state.params) < 1.0


def test_the_batch_has_every_field_that_the_loss_reads():
    cfg, mesh = NAMED[TINY.model], mesh_of(TINY)
    tokens = 2 * 4 * 64 // 4  # accumulation x rows x length over the axes of the batch
    assert bytes_per_device(abstract_batches(cfg, TINY, mesh)) == 7 * 4 * tokens
    more = replace(TINY, loss=LossSettings(router="replayed", kl=0.1))
    moe = cfg.moe
    assert moe is not None
    extra = 4 * tokens * (1 + cfg.num_layers * moe.experts_per_token)
    assert bytes_per_device(abstract_batches(cfg, more, mesh)) == 7 * 4 * tokens + extra


@pytest.mark.parametrize("name", ["tiny-qwen3.5", "tiny-gemma4"])
def test_a_cache_is_split_over_rows_and_heads(name: str):
    mesh = mesh_of(replace(TINY, mesh=MeshSettings(fsdp=4, tensor=1)), jax.devices()[:4])
    shapes = abstract_cache(NAMED[name], 4, 64, "bfloat16", mesh)
    whole = decoder.init_cache(NAMED[name], 4, 64, "bfloat16")
    assert bytes_per_device(shapes) * 4 == sum(x.nbytes for x in jax.tree.leaves(whole))


def test_the_compiled_decoding_step_takes_the_arguments_that_were_counted():
    experiment = replace(TINY, model="tiny-qwen3.5", mesh=MeshSettings(fsdp=2, tensor=2))
    program = decode_program(NAMED["tiny-qwen3.5"], experiment, mesh_of(experiment, jax.devices()[:4]))
    memory = program.lowered.compile().memory_analysis()
    tokens = 4 * 4 // 2  # one int32 for each of 4 rows over fsdp 2
    assert memory.argument_size_in_bytes == sum(program.arguments.values()) + tokens
    assert memory.alias_size_in_bytes == program.arguments["cache"]  # the cache is updated in place
