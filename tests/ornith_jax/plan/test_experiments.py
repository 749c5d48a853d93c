"""The experiments of the published sizes hold together on the slices that their headers name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ornith_jax.checks import check
from ornith_jax.experiment import from_json, load, to_json
from ornith_jax.plan.topology import parse

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("ornith_9b", "ornith_31b", "ornith_35b_a3b", "ornith_397b_a17b")


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_fits_the_slice_that_its_header_names(name: str):
    header = (ROOT / "experiments" / f"{name}.py").read_text().split('"""')[1]
    command = re.search(rf"ornith plan {name} --topology (\S+)`", header)
    assert command, "the header names the command that was run"
    assert command[0].strip("`") in (ROOT / "docs" / "scale.md").read_text()
    experiment = load(name)
    check(experiment, parse(command[1]).num_devices)
    assert experiment.train.seq_len == 32768
    assert from_json(to_json(experiment)) == experiment
