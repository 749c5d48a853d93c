"""Slices of accelerators by name (`v5p:4x4x8`, `v6e:16x16`, `h200:8`) and what their chips can do.

Figures are per device as jax counts them: a v5p, v6e or v5e chip is one device, a TPU7x chip is two.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ornith_jax.errors import OrnithError

GIB = 2**30
HOST_GPUS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One device. Bandwidths are bytes per second, `link` one way and over all links of a device together.

    hbm_bytes: what a program may use. TPUs: what XLA's own out-of-memory error names (libtpu 0.0.52). GPUs: what the
        driver reports, less the 5 % that CUDA, NCCL and fragmentation take (our allowance, not a measurement).
    far_link: between hosts; 0 when the whole slice hangs on `link`.
    """

    platform: str  # tpu | gpu
    hbm_bytes: int
    peak_flops: float  # bfloat16, dense
    hbm_bandwidth: float
    link: float
    far_link: float = 0.0
    per_chip: int = 1  # devices
    slices: tuple[str, ...]  # smallest first, for --search
    source: str


_V5P_SLICES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
_2D_SLICES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_GPU_SLICES = ("1", "2", "4", "8", "16", "32", "64", "128", "256", "512")

CHIPS = {
    "v5p": Chip(
        platform="tpu",
        hbm_bytes=int(95.73 * GIB),
        peak_flops=459e12,
        hbm_bandwidth=2765e9,
        link=600e9,
        slices=_V5P_SLICES,
        source="Cloud TPU documentation, v5p: 459 TFLOP/s, 95 GiB, 2765 GB/s, ICI 1200 GB/s both ways",
    ),
    "v6e": Chip(
        platform="tpu",
        hbm_bytes=int(31.24 * GIB),
        peak_flops=918e12,
        hbm_bandwidth=1638e9,
        link=400e9,
        slices=_2D_SLICES,
        source="Cloud TPU documentation, v6e and TPU7x: 918 TFLOP/s, 32 GB, 1638 GB/s, ICI 800 GB/s both ways",
    ),
    "v5e": Chip(
        platform="tpu",
        hbm_bytes=int(15.75 * GIB),
        peak_flops=197e12,
        hbm_bandwidth=819e9,
        link=200e9,
        slices=_2D_SLICES,
        source="Cloud TPU documentation, v6e: 197 TFLOP/s, 16 GB, 819 GB/s, ICI 1600 Gb/s one way",
    ),
    "tpu7x": Chip(
        platform="tpu",
        hbm_bytes=int(94.74 * GIB),
        peak_flops=2307e12 / 2,
        hbm_bandwidth=7380e9 / 2,
        link=300e9,
        per_chip=2,
        slices=_V5P_SLICES,
        source="Cloud TPU documentation, TPU7x: 2307 TFLOP/s, 192 GiB, 7380 GB/s, ICI 1200 GB/s for two devices",
    ),
    "h100": Chip(
        platform="gpu",
        hbm_bytes=int(81559 * 2**20 * 0.95),
        peak_flops=989e12,
        hbm_bandwidth=3350e9,
        link=450e9,
        far_link=50e9,
        slices=_GPU_SLICES,
        source="NVIDIA H100 SXM data sheet: 989 TFLOP/s, 3.35 TB/s, NVLink 900 GB/s; 400 Gb/s per GPU outside",
    ),
    "h200": Chip(
        platform="gpu",
        hbm_bytes=int(143771 * 2**20 * 0.95),
        peak_flops=989e12,
        hbm_bandwidth=4800e9,
        link=450e9,
        far_link=50e9,
        slices=_GPU_SLICES,
        source="NVIDIA H200 SXM data sheet: 989 TFLOP/s, 4.8 TB/s, NVLink 900 GB/s; 400 Gb/s per GPU outside",
    ),
}


@dataclass(frozen=True, slots=True)
class Topology:
    """`parse("v5p:2x2x4")` is Topology("v5p", (2, 2, 4)): 16 devices."""

    chip_name: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.chip_name]

    @property
    def num_devices(self) -> int:
        return math.prod(self.shape) * self.chip.per_chip

    @property
    def name(self) -> str:
        return f"{self.chip_name}:{'x'.join(map(str, self.shape))}"

    @property
    def link(self) -> float:
        """Bytes per second one way that a device exchanges with the others: the slowest link on the way."""
        return self.chip.far_link if self.chip.far_link and self.num_devices > HOST_GPUS else self.chip.link


def parse(text: str) -> Topology:
    """Raises OrnithError that lists what there is."""
    known = ", ".join(CHIPS)
    chip_name, colon, shape = text.partition(":")
    if chip_name not in CHIPS:
        raise OrnithError(f"topology {text!r}: unknown chip {chip_name!r}; known: {known}")
    dims = 1 if CHIPS[chip_name].platform == "gpu" else CHIPS[chip_name].slices[0].count("x") + 1
    form = "x".join("ABC"[:dims]) if dims > 1 else "N"
    examples = ", ".join(CHIPS[chip_name].slices[2:6])
    if not colon or not re.fullmatch(r"x".join([r"[1-9]\d*"] * dims), shape):
        raise OrnithError(f"topology {text!r}: write {chip_name}:{form}, with a size such as {examples}")
    topology = Topology(chip_name, tuple(int(n) for n in shape.split("x")))
    if CHIPS[chip_name].platform == "gpu" and topology.num_devices > HOST_GPUS and topology.num_devices % HOST_GPUS:
        raise OrnithError(f"topology {text!r}: more than {HOST_GPUS} GPUs come in hosts of {HOST_GPUS}")
    return topology


def slices(chip_name: str) -> list[Topology]:
    """The slices of a chip that --search tries, smallest first. Raises OrnithError for an unknown chip."""
    if chip_name not in CHIPS:
        raise OrnithError(f"--search {chip_name!r}: unknown chip; known: {', '.join(CHIPS)}")
    return [parse(f"{chip_name}:{size}") for size in CHIPS[chip_name].slices]
