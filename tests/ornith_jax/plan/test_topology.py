"""Slices are read by name, and what is not known is refused with what is."""

from __future__ import annotations

import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.plan import devices
from ornith_jax.plan.topology import CHIPS, parse, slices


@pytest.mark.parametrize(
    ("text", "num_devices"),
    [("v5p:4x8x8", 256), ("v6e:16x16", 256), ("tpu7x:2x2x1", 8), ("h200:8", 8), ("h100:64", 64)],
)
def test_a_slice_has_the_devices_that_its_name_says(text: str, num_devices: int):
    topology = parse(text)
    assert topology.num_devices == num_devices
    assert topology.name == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("v9:2x2", r"unknown chip 'v9'; known: v5p, v6e, v5e, tpu7x, h100, h200"),
        ("v5p", r"write v5p:AxBxC, with a size such as 2x2x4"),
        ("v5p:4x4", r"write v5p:AxBxC"),
        ("v6e:0x4", r"write v6e:AxB"),
        ("v6e:4x4x4", r"write v6e:AxB"),
        ("h200:2x4", r"write h200:N"),
        ("h200:12", r"more than 8 GPUs come in hosts of 8"),
        ("", r"unknown chip ''"),
    ],
)
def test_what_is_no_slice_is_refused_with_what_would_be(text: str, problem: str):
    with pytest.raises(OrnithError, match=problem):
        parse(text)


@pytest.mark.parametrize("chip_name", CHIPS)
def test_slices_grow_and_every_figure_has_a_source(chip_name: str):
    sizes = [topology.num_devices for topology in slices(chip_name)]
    assert sizes == sorted(sizes)
    chip = CHIPS[chip_name]
    assert f"{chip.peak_flops * chip.per_chip / 1e12:.0f} TFLOP/s" in chip.source
    assert 2**33 < chip.hbm_bytes < 2**38
    assert chip.hbm_bandwidth > chip.link > chip.far_link


def test_searching_an_unknown_chip_is_refused():
    with pytest.raises(OrnithError, match=r"--search 'cerebras': unknown chip; known: v5p"):
        slices("cerebras")


def test_beyond_a_host_gpus_are_as_slow_as_the_network():
    assert parse("h200:8").link == CHIPS["h200"].link
    assert parse("h200:16").link == CHIPS["h200"].far_link
    assert parse("v5p:8x8x8").link == CHIPS["v5p"].link


@pytest.mark.parametrize(
    ("text", "raised", "mend"),
    [
        (
            "v5p:2x2x1",
            RuntimeError("JAX TPU support not installed; cannot go on."),
            r"pip install .*plan",
        ),
        (
            "v5p:9x9x9",
            RuntimeError("INVALID_ARGUMENT: no such shape\nmore"),
            r"libtpu refuses it: INVALID_ARGUMENT",
        ),
        ("h200:8", NotImplementedError("topology not implemented for cuda"), r"pip install .*plan-gpu"),
    ],
)
def test_a_missing_compiler_is_one_line_with_the_mend(text, raised, mend, monkeypatch: pytest.MonkeyPatch):
    def fail(**_):
        raise raised

    monkeypatch.setattr(devices.topologies, "get_topology_desc", fail)
    with pytest.raises(OrnithError, match=mend) as caught:
        devices.make_devices(parse(text))
    assert "\n" not in str(caught.value)
