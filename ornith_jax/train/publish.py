"""Publish weights: parameters -> `weights/v0000012/`, which any engine loads. There at once or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax

from ornith_jax.config import ModelConfig
from ornith_jax.convert.save_hf import save_hf
from ornith_jax.errors import OrnithError
from ornith_jax.params import Params
from ornith_jax.processes import from_first, to_first
from rollout.published import seal, version_folder


def publish(
    params: Params,
    cfg: ModelConfig,
    root: Path,
    policy_version: int,
    *,
    side_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the parameters, in the dtypes they have, as version `policy_version` below `root`; returns the folder.

    Every process must call it; process 0 writes.

    Args:
        side_files: name -> content of further files, such as a tokenizer.
    Raises:
        OrnithError: the version is there already, or the disk is full.
    """
    folder = version_folder(root, policy_version)
    if jax.process_count() > 1:
        params = to_first(params)
        if jax.process_index() == 0:
            _write(params, cfg, folder, policy_version, side_files)
        from_first(0)  # it is there for all
    else:
        _write(params, cfg, folder, policy_version, side_files)
    return folder


def _write(
    params: Params, cfg: ModelConfig, folder: Path, policy_version: int, side_files: Mapping[str, bytes] | None
) -> None:
    if folder.exists():
        raise OrnithError(f"{folder}: is published already; a version never changes")
    staging = folder.with_name(f".{folder.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)  # left by a writer that was killed
    save_hf(params, cfg, staging, side_files=side_files)
    seal(staging, policy_version)
    os.rename(staging, folder)
