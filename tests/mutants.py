"""Do the tests notice? Breaks the code in one place at a time, in a copy, and runs the tests that should fail.

    python -m tests.mutants            # all, one after the other; exit code 1 if any survives
    python -m tests.mutants window     # those whose name contains a word

Not part of `make test`: it asks whether the tests are worth running, not whether the code is right.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DELTA, ATTENTION, MOE = (f"tests/ornith_jax/nn/test_{name}.py" for name in ("delta_rule", "attention", "moe"))
SAMPLER, ENGINE, CONFORMANCE = (
    f"tests/ornith_jax/serve/test_{n}.py" for n in ("sampler", "engine", "engine_conformance")
)
PARITY = "tests/ornith_jax/models/test_parity.py"
ROUND_TRIP, BAD = (f"tests/ornith_jax/convert/test_{name}.py" for name in ("round_trip", "bad_input"))
EPISODE, SCAFFOLD = "tests/rollout/agent", "tests/rollout/scaffold"
DRIVER, RESUME = (f"tests/rollout/driver/test_{name}.py" for name in ("driver", "resume"))
LOG = "tests/rollout/store/test_log.py"


@dataclass(frozen=True)
class Mutant:
    """Replace `old` by `new` in `file`; at least one test of `tests` must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


def driver(name: str, file: str, old: str, new: str, tests: str) -> Mutant:
    return Mutant(f"driver: {name}", f"rollout/{file}.py", old, new, tests)


def nn(name: str, file: str, old: str, new: str, tests: str) -> Mutant:
    return Mutant(name, f"ornith_jax/nn/{file}.py", old, new, tests)


def serve(name: str, file: str, old: str, new: str, tests: str) -> Mutant:
    return Mutant(name, f"ornith_jax/serve/{file}.py", old, new, tests)


def train(name: str, file: str, old: str, new: str) -> Mutant:
    """`file` is tested by the file of the same name, but for the whole run."""
    tests = {"loop": "loop", "run": "resume"}.get(file, file)
    return Mutant(
        f"train: {name}",
        f"ornith_jax/train/{file.replace('run', 'loop')}.py",
        old,
        new,
        f"tests/ornith_jax/train/test_{tests}.py",
    )


MUTANTS = [
    nn("state not carried over chunks", "delta_rule", "keep[..., None, None] * state +", "0 * state +", DELTA),
    nn("state leaks over a segment border", "delta_rule", "seg_JBC == before_JB[..., None]", "seg_JBC > -1", DELTA),
    nn("tokens of two segments mix in a chunk", "delta_rule", "& causal[None, None]", "| causal[None, None]", DELTA),
    nn("decay in bfloat16", "delta_rule", "jnp.cumsum(g, axis=-1)", "jnp.cumsum(g.astype('bfloat16'), -1).astype('float32')", DELTA),
    nn("mask after exp", "delta_rule", ", -jnp.inf)", ", 0.0)", DELTA),
    nn("length that is no multiple of the chunk", "delta_rule", "[:, :T], state", "[:, -T:], state", DELTA),
    nn("wrong triangular inverse", "triangular", "identity - lower, lower, 2", "identity + lower, lower, 2", DELTA),
    nn("convolution crosses a border", "conv", "same_BT = history[:, tap : tap + T] == segments_BT", "same_BT = segments_BT > -1", PARITY),
    nn("pads move the state", "gated_delta", "jnp.where(valid, beta_BTH, 0.0)", "beta_BTH", PARITY),
    nn("key heads tiled, not repeated", "gated_delta", "k = jnp.repeat(_l2_normalize(mixed[\"k\"]), group, axis=2)", "k = jnp.tile(_l2_normalize(mixed[\"k\"]), (1, 1, group, 1))", PARITY),
    nn("one token ahead", "attention", "seen = key_1T <= query_T1", "seen = key_1T <= query_T1 + 1", ATTENTION),
    nn("window off by one", "attention", "seen &= query_T1 - key_1T < window", "seen &= query_T1 - key_1T <= window", ATTENTION),
    nn("cached window off by one", "attention", "position_BS[:, None, :] < window", "position_BS[:, None, :] <= window", ATTENTION),
    nn("attention crosses a border", "attention", "seen[None] & same &", "seen[None] &", ATTENTION),
    nn("key/value group order", "attention", "q_BTNH.reshape(B, T, K, G, H), 1, 3)", "q_BTNH.reshape(B, T, G, K, H).swapaxes(2, 3), 1, 3)", ATTENTION),
    nn("positions rounded", "rope", "positions_BT.astype(jnp.float32)", "positions_BT.astype(jnp.bfloat16).astype(jnp.float32)", ATTENTION),
    nn("expert weights not renormalised", "moe", "return weights_MX / jnp.sum(weights_MX, axis=-1, keepdims=True), experts_MX", "return weights_MX, experts_MX", MOE),
    nn("a dropped token", "grouped", "most = -(-num_rows // block) + min(sizes_E.shape[0], num_rows)", "most = -(-num_rows // block)", MOE),
    nn("wrong gradient of the experts", "grouped", "jnp.zeros_like(w_ENK))\n", "jnp.ones_like(w_ENK))\n", MOE),
    nn("gated norm multiplies before the norm", "norm", "y = normalize(x.astype(jnp.float32), eps).astype(x.dtype)", "y = normalize((x * jax.nn.silu(gate)).astype(jnp.float32), eps).astype(x.dtype)", PARITY),
    nn("norm weight not zero-centred", "norm", "w = 1.0 + w if zero_centered else w", "w = w", PARITY),
    Mutant("erf instead of tanh", "ornith_jax/nn/mlp.py", "approximate=True", "approximate=False", PARITY),
    Mutant("scan in the wrong order", "ornith_jax/models/decoder.py", "(params[\"layers\"], cache))\n", "(params[\"layers\"], cache), reverse=True)\n", PARITY),
    Mutant("layer scalar trained", "ornith_jax/models/gemma4.py", "jax.lax.stop_gradient(params[\"layer_scalar\"])", "params[\"layer_scalar\"]", PARITY),
    Mutant("padding row trained", "ornith_jax/nn/embed.py", "jax.lax.stop_gradient(x_BTD)", "x_BTD", PARITY),
    Mutant("two axes on one mesh axis accepted", "ornith_jax/sharding.py", "mesh_axis is not None and mesh_axis in used", "False", "tests/ornith_jax/test_sharding.py"),
    Mutant("a parameter replicated", "ornith_jax/sharding.py", '"embed": "fsdp"', '"embed": None', "tests/ornith_jax/test_sharding.py"),
    Mutant("experts permuted", "ornith_jax/convert/ops.py", "tuple(e if i == EXPERT else i for i in row.index)", "tuple(num_experts - 1 - e if i == EXPERT else i for i in row.index)", "tests/ornith_jax/convert"),
    Mutant("gate and up exchanged", "ornith_jax/convert/qwen3_5.py", 'up_proj.weight", "moe/experts/gate_up", index=(EXPERT, 1)', 'up_proj.weight", "moe/experts/gate_up", index=(EXPERT, 0)', "tests/ornith_jax/convert"),
    Mutant("layers in the wrong order", "ornith_jax/convert/mapping.py", 'f"layers/{slot}/", (r,)', 'f"layers/{slot}/", (cfg.repeats - 1 - r,)', "tests/ornith_jax/convert"),
    Mutant("missing tensor accepted", "ornith_jax/convert/mapping.py", "    if missing:\n", "    if False:\n", BAD),
    Mutant("an upward import", "ornith_jax/nn/norm.py", "import jax\n", "import jax\nimport ornith_jax.models.decoder\n", "tests/test_layers.py"),
    Mutant("a cut reply is carried out", "rollout/agent/attempt.py", "if finish is Finish.LENGTH:", "if False:", EPISODE),
    Mutant("work that was not handed in is graded", "rollout/agent/solve.py", "world.grade if stop is StopReason.SUBMITTED else _not_handed_in", "world.grade", EPISODE),
    Mutant("a workspace that was thrown away is forgotten", "rollout/agent/solve.py", "for earlier in episodes[:-1]:", "for earlier in []:", EPISODE),
    Mutant("a slow engine is the policy's fault", "rollout/agent/attempt.py", "if 2 * self.space.acted_s >= spent:", "if True:", EPISODE),
    Mutant("errors of different turns count as a row", "rollout/agent/course.py", "self._failures[kind] + 1 if happened else 0", "self._failures[kind] + happened", EPISODE),
    Mutant("a fork that is not marked", "rollout/agent/conversation.py", "self._forked = bool(self.turns)", "self._forked = False", EPISODE),
    Mutant("a scaffold widens the tools", "rollout/scaffold/parse.py", "if tool not in bounds.tools:", "if False:", SCAFFOLD),
    Mutant("a result is overwritten", "rollout/scaffold/library.py", ".setdefault(result.trajectory_id, result)", ".__setitem__(result.trajectory_id, result)", SCAFFOLD),
    serve("scored before the cut", "sampler", "return kept_BV - jax.nn.logsumexp(kept_BV, axis=-1, keepdims=True)", "return kept_BV", SAMPLER),
    serve("likelier tokens counted wrong", "sampler", "dtype=jnp.int32) < count_B)", "dtype=jnp.int32) <= count_B)", SAMPLER),
    serve("draws do not depend on the position", "sampler", "seed, impl=\"threefry2x32\"), position)", "seed, impl=\"threefry2x32\"), 0)", SAMPLER),
    serve("a prefix outlives an update", "loop", "self._prefixes.clear()", "pass", CONFORMANCE),
    serve("a cache of two versions is kept", "loop", " and request.weights == self._weights:", ":", ENGINE),
    serve("the last token counts as cached", "loop", "np.asarray(request.token_ids[:-1], np.int32)", "np.asarray(request.token_ids, np.int32)", CONFORMANCE),
    serve("idle rows read a token", "programs", "num_new_B = active_B.astype(jnp.int32)", "num_new_B = jnp.ones_like(token_B)", CONFORMANCE),
    serve("a moved row arrives empty", "loop", "self._slots.put(row, self._slots.take(request.row, request.length))", "self._slots.put(row, None)", ENGINE),
    serve("the cancelled keep their rows", "loop", "            self._free(request)\n        if any", "            pass\n        if any", CONFORMANCE),
    train("the embedding is decayed", "optim", '*("embed", "conv_q"', '*("conv_q"'),
    train("a frozen router is decayed", "optim", "name: moving[name] and is_decayed(name)", "name: is_decayed(name)"),
    train("experts orthogonalized together", "optim", '("layers", "experts", None, "embed")', '("layers", None, "embed")'),
    train("warm-up one step late", "optim", "(done + 1.0)", "done"),
    train("moments kept in float32", "optim", "return updates, cast(state, dtype)", "return updates, state"),
    train("a mean of means", "step", "denominator = jnp.maximum(batches.loss_mask.sum(), 1.0)", "denominator = batches.loss_mask[0].sum() * batches.loss_mask.shape[0]"),
    train("a skipped step is an update", "step", "state.replace(skipped=state.skipped + 1)", "state.replace(skipped=state.skipped + 1, step=state.step + 1)"),
    train("what is not finite is applied", "step", "finite = jnp.isfinite(value) & jnp.isfinite(norm)", "finite = jnp.bool_(True)"),
    train("the state is not donated", "step", "donate_argnums=0,", ""),
    train("load of the last micro-batch alone", "step", "load + more[2]", "more[2]"),
    train("the sampling temperature is ignored", "step", "temperature=experiment.sampling.temperature", "temperature=1.0"),
    train("a changed byte is accepted", "checkpoint", "if mark != wanted[name]:", "if False:"),
    train("damage everywhere begins again", "checkpoint", "if damaged:", "if False:"),
    train("the oldest are kept", "checkpoint", "(self.folder)[self.keep :]", "(self.folder)[: -self.keep]"),
    train("the order is not shuffled", "data", ".shuffle()", ""),
    train("the first token trains", "data", "mask[starts[:-1]] = 0", "mask[0] = 0"),
    train("a torn line counts", "metrics", "enumerate(lines[:-1], 1)", "enumerate(lines, 1)"),
    train("metrics are read at once", "loop", "        before = now\n", "        report(now)\n"),
    train("the position is forgotten", "run", 'batches.set_state(restored.position["data"])', "pass"),
    driver("one update too many in flight", "admission", "max_staleness + 1) *", "max_staleness + 2) *", DRIVER),
    driver("dropped groups keep their place", "ledger", "len(self.numbers) - len(self.dropped)", "len(self.numbers)", DRIVER),
    driver("no update waits for the slow", "ledger", "or len(handed) + late < groups_per_step:", "or True:", DRIVER),
    driver("tokens from the future", "ledger", "closing.newest_version <= policy_version", "True", RESUME),
    driver("an outage benches tasks", "ledger", "closing.broken and self._good_at_strike.get(task_id) != self._good", "closing.broken", DRIVER),
    driver("a second proposal after a restart", "group", 'if self._store.has("proposal", id):', "if False:", RESUME),
    driver("finished episodes are played again", "group", 'if self._store.has("trajectory", id):\n            self.found', "if False:\n            self.found", RESUME),
    driver("admissions are not stored", "driver", 'await self._store.append("admitted", group_id, admission)', "pass", DRIVER),
    driver("the position is ignored", "driver", "if self._ledger.numbers[id] in self._used:", "if False:", RESUME),
    driver("answered before it is on the disk", "store/writer", "os.fsync(self._file)", "pass", LOG),
    driver("changed bytes are accepted", "store/frame", "int(head[2], 16) != zlib.crc32(memoryview(line)[18:-1])", "False", LOG),
    driver("an id is stored twice", "store/store", "if (kind, id) in self.index.entries:\n            return False", "if False:\n            return False", LOG),
]  # fmt: skip


def survives(mutant: Mutant) -> bool:
    """Whether all the named tests still pass on the broken copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv*", ".git", "runs", "*_cache", "__pycache__"))
        target = copy / mutant.file
        source = target.read_text()
        assert source.count(mutant.old) >= 1, f"{mutant.name}: the line to break is no longer in {mutant.file}"
        target.write_text(source.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", mutant.tests]
        done = subprocess.run(
            command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.returncode == 0


def main() -> int:
    chosen = [m for m in MUTANTS if all(word in m.name for word in sys.argv[1:])]
    alive = []
    for mutant in chosen:
        alive += [mutant.name] * survives(mutant)
        print(f"{'SURVIVES' if mutant.name in alive else 'noticed':<9} {mutant.name}", flush=True)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} noticed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
