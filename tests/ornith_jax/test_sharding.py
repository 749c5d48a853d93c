"""Shardings come from the table, collide loudly, and leave no large parameter replicated."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ornith_jax.config import MoEConfig
from ornith_jax.errors import OrnithError
from ornith_jax.models import decoder
from ornith_jax.models.named import NAMED
from ornith_jax.params import ParamSpec, flatten, init
from ornith_jax.sharding import RULES, check_batch, make_mesh, mesh_axes, partition_spec, shardings


def test_two_logical_axes_on_one_mesh_axis_are_refused():
    spec = ParamSpec((8, 8), ("heads", "ffw"))
    with pytest.raises(OrnithError, match=r"layers/x: axes 'heads' and 'ffw' both map to mesh axis 'tensor'"):
        partition_spec("layers/x", spec)


def test_an_axis_without_a_rule_and_an_indivisible_dimension_are_named():
    with pytest.raises(OrnithError, match="'height' has no sharding rule"):
        partition_spec("p", ParamSpec((8,), ("height",)))
    with pytest.raises(OrnithError, match="a/b: dimension of 6 is not divisible by mesh axis 'fsdp' of size 8"):
        shardings({"a": {"b": ParamSpec((6,), ("embed",))}}, make_mesh({"fsdp": 8}))


@pytest.mark.parametrize(("sizes", "problem"), [({"fsdp": 3}, "needs 3 devices"), ({"fdsp": 8}, "unknown axis 'fdsp'")])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes, problem):
    with pytest.raises(OrnithError, match=problem):
        make_mesh(sizes)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_no_large_parameter_of_any_model_is_replicated(name: str):
    """Everything with two real dimensions is spread over fsdp, expert, tensor or context."""
    for path, spec in flatten(decoder.table(NAMED[name])).items():
        inner = [n for n, axis in zip(spec.shape, spec.axes, strict=True) if axis != "layers"]
        entries = partition_spec(path, spec)
        if len(inner) > 1:
            assert any(entries), f"{path} is silently replicated"
    assert {axis for rule in RULES.values() for axis in mesh_axes(rule)} <= {"fsdp", "tensor", "expert", "context"}


def test_a_model_initialised_on_a_mesh_has_the_declared_shardings_and_the_same_numbers():
    cfg = NAMED["tiny-qwen3.5-moe"]
    table = decoder.table(cfg)
    mesh = make_mesh({"fsdp": 2, "expert": 2, "tensor": 2})
    placed = shardings(table, mesh)
    key = jax.random.key(0)
    params = jax.jit(lambda: init(table, key, "float32"), out_shardings=placed)()
    for name, value in flatten(params).items():
        assert value.sharding == flatten(placed)[name], name
    gate_up = params["layers"]["0_gdn"]["moe"]["experts"]["gate_up"]
    assert gate_up.sharding.spec == PartitionSpec(None, "expert", None, "tensor", ("fsdp", "context"))
    assert gate_up.addressable_shards[0].data.size * 8 == gate_up.size
    np.testing.assert_allclose(params["embed"], init(table, key, "float32")["embed"], rtol=1e-6)


def test_a_rule_of_several_axes_leaves_out_those_that_another_dimension_takes():
    assert partition_spec("p", ParamSpec((8, 8), ("experts", "embed"))) == PartitionSpec(
        "expert", ("fsdp", "tensor", "context")
    )
    assert partition_spec("p", ParamSpec((8,), ("embed",))) == PartitionSpec(("fsdp", "expert", "tensor", "context"))
    with pytest.raises(
        OrnithError, match="p: dimension of 12 is not divisible by mesh axis 'fsdp' of size 2 x 'expert'"
    ):
        shardings({"p": ParamSpec((12,), ("embed",))}, make_mesh({"fsdp": 2, "expert": 4}))


def test_experts_and_batches_that_do_not_divide_over_the_mesh_are_refused_by_name():
    cfg = replace(
        NAMED["tiny-qwen3.5-moe"], moe=MoEConfig(num_experts=6, experts_per_token=2, expert_dim=8, shared_dim=8)
    )
    mesh = make_mesh({"expert": 4, "context": 2})
    with pytest.raises(OrnithError, match="6 is not divisible by mesh axis 'expert' of size 4"):
        shardings(decoder.table(cfg), mesh)
    check_batch(mesh, 8, 6)
    with pytest.raises(OrnithError, match="6 rows are not divisible by data x fsdp x expert = 4"):
        check_batch(mesh, 6, 6)
    with pytest.raises(OrnithError, match="5 tokens are not divisible by mesh axis 'context' of 2"):
        check_batch(mesh, 4, 5)
