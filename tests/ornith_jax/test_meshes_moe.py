"""Every mesh gives a mixture's loss, load, gradients and shardings; the dense models are in test_meshes_dense."""

from __future__ import annotations

import pytest

from tests.ornith_jax import meshes


@pytest.mark.parametrize("sizes", meshes.MESHES, ids=meshes.name_of)
@pytest.mark.parametrize("name", ["tiny-qwen3.5-moe", "tiny-gemma4-moe"])
def test_a_mesh_changes_neither_loss_nor_load_nor_any_gradient_and_replicates_no_weight(name, sizes):
    meshes.check(name, sizes)
