"""Every mesh gives a dense model's loss, gradients and shardings; the mixtures are in test_meshes_moe."""

from __future__ import annotations

import pytest

from tests.ornith_jax import meshes


@pytest.mark.parametrize("sizes", meshes.MESHES, ids=meshes.name_of)
@pytest.mark.parametrize("name", ["tiny-qwen3.5", "tiny-gemma4"])
def test_a_mesh_changes_neither_loss_nor_any_gradient_and_replicates_no_weight(name, sizes):
    meshes.check(name, sizes)
