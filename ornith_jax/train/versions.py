"""The versions that a learner publishes: weights as engines compute with them, the tokenizer, and the canary."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from ornith_jax.config import ModelConfig
from ornith_jax.experiment import Experiment
from ornith_jax.models.decoder import table
from ornith_jax.params import Params, is_spec
from ornith_jax.processes import from_first
from ornith_jax.train.canary import make_probes
from ornith_jax.train.publish import publish
from rollout.canary import FILE, to_json
from rollout.published import NAME, READY, newest, version_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """`root` is RUN/weights. Every process must call it; process 0 writes."""

    root: Path
    cfg: ModelConfig
    experiment: Experiment
    mesh: Mesh
    side_files: dict[str, bytes]

    def publish(self, params: Params, policy_version: int) -> bool:
        """Publish, unless this version or a newer one is there already; forget old ones. Did it publish?

        A learner that went back to an older checkpoint comes by versions that it published before: they stand.
        """
        found = newest(self.root)
        if from_first(-1 if found is None else found[0]) >= policy_version:
            return False
        cast = _cast(params, self.cfg, self.experiment.engine.dtype)
        probes = make_probes(cast, self.cfg, self.mesh, self.experiment.engine.dtype)
        side_files = {**self.side_files, FILE: json.dumps(to_json(probes)).encode()}
        publish(cast, self.cfg, self.root, policy_version, side_files=side_files)
        if jax.process_index() == 0:
            self._prune()
        return True

    def _prune(self) -> None:
        ready = sorted(path.parent for path in self.root.glob(f"v*/{READY}") if NAME.fullmatch(path.parent.name))
        for old in ready[: -self.experiment.train.keep_versions]:
            (old / READY).unlink(missing_ok=True)  # first, so that a kill leaves nothing that looks whole
            shutil.rmtree(old, ignore_errors=True)

    def has(self, policy_version: int) -> bool:
        """Is that very version there?"""
        return (version_folder(self.root, policy_version) / READY).exists()


def _cast(params: Params, cfg: ModelConfig, dtype: str) -> Params:
    """In the dtype of the engines; parameters that are always float32 stay so."""
    return jax.tree.map(lambda spec, x: x.astype(spec.dtype(dtype)), table(cfg), params, is_leaf=is_spec)
