"""Checkpoints: exact, asynchronous, kept in number, moved between meshes, and never trusted when they are damaged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.params import flatten
from ornith_jax.train.checkpoint import SEAL, Checkpoints
from ornith_jax.train.state import TrainState, abstract_state, init_state, mesh_of
from tests.ornith_jax.train.tiny import DENSE, experiment

ONE = experiment()


def mesh_one():
    return mesh_of(ONE, jax.devices()[:1])


def like(state: TrainState) -> TrainState:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def small(value: float) -> TrainState:
    """A state of a few arrays, which needs no compiler; one of them is large enough to be a file of its own."""
    return TrainState(
        step=jnp.int32(value),
        params={"a": {"w": jnp.full((300, 1000), value), "b": jnp.full((3,), value, jnp.bfloat16)}},
        opt_state=(jnp.full((4,), -value),),
        skipped=jnp.int32(0),
    )


def assert_same(a: TrainState, b: TrainState) -> None:
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype, path
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=str(path))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Checkpoints 1 and 2, both whole."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for batch in (1, 2):
            checkpoints.save(batch, small(batch), {"data": {"next": batch}, "staleness": [0, batch]})
    return folder


def test_what_is_saved_is_restored_with_its_position(two):
    with Checkpoints(two, keep=3) as checkpoints:
        found = checkpoints.restore(like(small(0)))
    assert (found.batch, found.position) == (2, {"data": {"next": 2}, "staleness": [0, 2]})
    assert_same(found.state, small(2))


def test_a_state_may_be_donated_while_it_is_written(tmp_path):
    """The steps that follow reuse the buffers of the state that is on its way to the disk."""
    bump = jax.jit(lambda tree: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), tree), donate_argnums=0)
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        state = TrainState(step=jnp.int32(1), params={"w": jnp.ones((4096, 4096))}, opt_state=(), skipped=jnp.int32(0))
        checkpoints.save(1, state, {})
        for _ in range(10):
            state = bump(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        found = checkpoints.restore(like(state)).state
    assert float(state.params["w"][0, 0]) == 11
    assert int(found.step) == 1
    assert float(found.params["w"].min()) == float(found.params["w"].max()) == 1


def largest(folder: Path) -> Path:
    return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def smallest(folder: Path) -> Path:
    return min((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "pick", [largest, smallest, lambda folder: folder / "position.json"], ids=["big", "small", "json"]
)
@pytest.mark.parametrize("damage", [truncate, empty, flip, Path.unlink])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_used(two, tmp_path, capsys, pick, damage):
    root = shutil.copytree(two, tmp_path / "c")
    broken = pick(root / "00000002")
    damage(broken)
    with Checkpoints(root, keep=3) as checkpoints:
        found = checkpoints.restore(like(small(0)))
    assert found.batch == 1
    assert_same(found.state, small(1))
    warning = capsys.readouterr().err
    assert f"{root / '00000002'}: damaged: {broken.relative_to(root / '00000002')}" in warning


def test_a_damaged_seal_counts_as_damage(two, tmp_path, capsys):
    for damage in (truncate, empty, flip):
        root = shutil.copytree(two, tmp_path / damage.__name__)
        content = json.loads((root / "00000002" / SEAL).read_text())
        content["files"]["position.json"][1] += 1
        (root / "00000002" / SEAL).write_text(json.dumps(content))
        if damage is not flip:
            damage(root / "00000002" / SEAL)
        with Checkpoints(root, keep=3) as checkpoints:
            assert checkpoints.restore(like(small(0))).batch == 1
        assert f"{root / '00000002'}: damaged" in capsys.readouterr().err


def test_a_half_written_checkpoint_is_named_and_the_one_before_is_used(two, tmp_path, capsys):
    root = shutil.copytree(two, tmp_path / "c")
    (root / "00000002" / SEAL).unlink()
    (root / "00000003" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    with Checkpoints(root, keep=3) as checkpoints:
        assert checkpoints.restore(like(small(0))).batch == 1
        warnings = capsys.readouterr().err
        assert f"{root / '00000002'}: half-written" in warnings
        assert f"{root / '00000003'}: half-written" in warnings
        checkpoints.save(2, small(7), {})  # the same numbers are written again
        checkpoints.save(3, small(8), {})
        checkpoints.wait()
        assert_same(checkpoints.restore(like(small(0))).state, small(8))


def test_a_run_killed_before_its_first_checkpoint_begins_again(two, tmp_path):
    root = shutil.copytree(two, tmp_path / "c")
    for batch in ("00000001", "00000002"):
        (root / batch / SEAL).unlink()
    with Checkpoints(root, keep=3) as checkpoints:
        assert checkpoints.restore(like(small(0))) is None
    with Checkpoints(tmp_path / "new", keep=3) as checkpoints:
        assert checkpoints.restore(like(small(0))) is None


def test_when_all_are_damaged_nothing_begins_again_in_silence(two, tmp_path):
    root = shutil.copytree(two, tmp_path / "c")
    for batch in ("00000001", "00000002"):
        flip(largest(root / batch))
    with Checkpoints(root, keep=3) as checkpoints, pytest.raises(OrnithError, match="no checkpoint is whole"):
        checkpoints.restore(like(small(0)))


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for batch in (3, 6, 9, 12):
            checkpoints.save(batch, small(batch), {})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["00000009", "00000012"]


def test_a_checkpoint_moves_from_one_device_to_a_mesh_of_eight_and_back(tmp_path):
    e = experiment(mesh={"fsdp": 4, "data": 2})
    state = init_state(DENSE, ONE, mesh_one())
    many, one = abstract_state(DENSE, e, mesh_of(e)), abstract_state(DENSE, ONE, mesh_one())
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        checkpoints.save(1, state, {})
        checkpoints.wait()
        spread = checkpoints.restore(many).state
        assert_same(spread, state)
        for name, x in flatten(spread.params).items():
            assert x.sharding == flatten(many.params)[name].sharding
        checkpoints.save(2, spread, {})
        checkpoints.wait()
        back = checkpoints.restore(one)
    assert back.batch == 2
    assert_same(back.state, state)


def test_a_checkpoint_of_another_model_is_refused(two):
    other = small(0).replace(params={"a": {"w": jnp.zeros((300, 999)), "b": jnp.zeros((3,), jnp.bfloat16)}})
    for wrong, name in ((other, r"\['w'\]"), (small(0).replace(params={"z": jnp.zeros(3)}), r"\['b'\]")):
        with Checkpoints(two, keep=3) as checkpoints, pytest.raises(OrnithError, match=f"does not fit.*{name} is"):
            checkpoints.restore(like(wrong))


def test_a_checkpoint_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "00000001").write_text("in the way")
    with pytest.raises((OrnithError, OSError)), Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        checkpoints.save(1, small(1), {})


def test_random_parameters_are_the_same_on_every_mesh():
    e = replace(experiment(mesh={"fsdp": 4, "data": 2}), seed=3)
    one = init_state(DENSE, replace(ONE, seed=3), mesh_one())
    assert_same(init_state(DENSE, e, mesh_of(e)), one)
    other = init_state(DENSE, replace(ONE, seed=4), mesh_one())
    assert not np.array_equal(one.params["lm_head"], other.params["lm_head"])
