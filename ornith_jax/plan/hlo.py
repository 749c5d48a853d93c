"""What an optimized XLA program sends between devices and through its memory: its text, times how often loops run.

Collective bytes are what one device sends or receives, by the size of the data: an all-gather counts its result, a
reduce-scatter its operand, an all-reduce twice its operand (it is both), an exchange its operand. Memory traffic is
the size of every result, written once and read once; results of a fusion's inside, and those that live in on-chip
memory, are none. A loop whose length is only known when it runs counts once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

NO_TRAFFIC = frozenset(
    {"parameter", "constant", "iota", "partition-id", "tuple", "get-tuple-element", "bitcast", "opt-barrier"}
    | {"while", "conditional", "call", "after-all", "add-dependency"}
)
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "ragged-all-to-all", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\([^\n]*\) -> [^\n]*)?\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"[\s)}\]]([a-z][a-z0-9\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d+(?:e\dm\d\w*)?|pred)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_KNOWN = re.compile(r'known_trip_count[^\d}]*"?n"?[^\d}]*(\d+)')


@dataclass(slots=True)
class _Computation:
    shapes: dict[str, str] = field(default_factory=dict)  # instruction -> the text of its type
    lines: list[tuple[str, str, str]] = field(default_factory=list)  # (opcode, type, whole right-hand side)
    named: dict[str, tuple[str, str, str]] = field(default_factory=dict)


@dataclass(slots=True)
class Program:
    """The computations of a program by name, and the one that runs."""

    computations: dict[str, _Computation]
    entry: str


def read(text: str) -> Program:
    """The text that XLA prints of a compiled program."""
    return Program(*_read(text))


def collective_bytes(program: Program) -> dict[str, int]:
    """Kind of collective -> bytes per device of one run of the program, for those that occur."""
    total: dict[str, int] = {}
    for name, times in _runs(program, fusions=True):
        for opcode, result, line in program.computations[name].lines:
            kind = opcode.removesuffix("-start")
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # as XLA:TPU writes it: a fusion of an all-reduce and the slice that is kept
            if kind in COLLECTIVES:
                total[kind] = total.get(kind, 0) + times * _size(kind, result, line, program.computations[name])
    return total


def memory_traffic(program: Program) -> int:
    """Bytes per device of one run: every result once written and once read."""
    total = 0
    for name, times in _runs(program, fusions=False):
        computation = program.computations[name]
        written = sum(_written(line, computation, program) for line in computation.lines)
        total += 2 * times * written
    return total


def _runs(program: Program, *, fusions: bool) -> Iterator[tuple[str, int]]:
    """(computation, how often it runs), from the entry down; with or without the insides of fusions."""
    waiting = [(program.entry, 1)]
    while waiting:
        name, times = waiting.pop()
        yield name, times
        for opcode, _, line in program.computations[name].lines:
            if opcode == "fusion" and not fusions:
                continue
            inner = times * _trips(line, program.computations) if opcode == "while" else times
            for called in _CALLED.findall(line):
                waiting += [(c, inner) for c in re.findall(r"[\w.\-]+", called) if c in program.computations]


def _written(line: tuple[str, str, str], computation: _Computation, program: Program) -> int:
    """Bytes that an instruction writes to memory. An update in place writes the update, not the whole."""
    opcode, result, text = line
    if opcode in NO_TRAFFIC or opcode.endswith("-start"):
        return 0
    if opcode == "dynamic-update-slice":
        operands = _operands(text, result)
        return _bytes(computation.shapes.get(operands[1], "")) if len(operands) > 1 else 0
    inside = _CALLED.search(text) if opcode == "fusion" else None
    body = program.computations.get(inside[1].lstrip("%")) if inside else None
    if body is None or not body.lines:
        return _bytes(result)
    root = body.lines[-1]
    parts = [root] if root[0] != "tuple" else [body.named[name] for name in _operands(root[2], root[1])]
    in_place = [_written(_behind_bitcasts(part, body), body, program) for part in parts if _updates(part, body)]
    if not in_place:
        return _bytes(result)
    return sum(in_place) + sum(_bytes(part[1]) for part in parts if not _updates(part, body))


def _behind_bitcasts(line: tuple[str, str, str], computation: _Computation) -> tuple[str, str, str]:
    while line[0] == "bitcast":
        line = computation.named[_operands(line[2], line[1])[0]]
    return line


def _updates(line: tuple[str, str, str], computation: _Computation) -> bool:
    return _behind_bitcasts(line, computation)[0] == "dynamic-update-slice"


def _read(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, here = "", None
    for line in text.split("\n"):
        if head := _COMPUTATION.match(line):
            here = computations.setdefault(head[2], _Computation())
            entry = head[2] if head[1] else entry
        elif line == "}" or line.startswith("}, execution_thread"):  # kernels have lines of their own that begin so
            here = None
        elif here is not None and (found := _INSTRUCTION.match(line)):
            opcode = _OPCODE.search(found[2])
            if opcode:
                result = found[2][: opcode.start() + 1]
                here.shapes[found[1]] = result
                here.lines.append((opcode[1], result, found[2]))
                here.named[found[1]] = here.lines[-1]
    assert entry, "not the text of an XLA program"
    return computations, entry


def _trips(line: str, computations: dict[str, _Computation]) -> int:
    """How often a `while` runs: from its own record, or from a condition of the form `counter < constant`."""
    if known := _KNOWN.search(line):
        return int(known[1])
    condition = _CONDITION.search(line)
    lines = computations[condition[1]].lines if condition and condition[1] in computations else []
    limits = [int(n) for opcode, _, rhs in lines if opcode == "constant" for n in re.findall(r"constant\((\d+)\)", rhs)]
    below = any(opcode == "compare" and "direction=LT" in rhs for opcode, _, rhs in lines)
    return limits[0] if below and len(limits) == 1 else 1


def _size(kind: str, result: str, line: str, computation: _Computation) -> int:
    if kind == "all-gather":
        return _largest(result)
    names = _operands(line, result)
    operands = [_largest(computation.shapes[name]) for name in names if name in computation.shapes]
    if kind == "ragged-all-to-all":  # operand, output, then offsets and sizes
        return operands[0] if operands else _largest(result)
    moved = sum(operands) if operands else _largest(result)
    return 2 * moved if kind == "all-reduce" else moved


def _operands(line: str, result: str) -> list[str]:
    """Names of the operands of an instruction."""
    return re.findall(r"%([\w.\-]+)", line[line.index("(", len(result)) :].split("), ")[0])


def _largest(type_text: str) -> int:
    """Bytes of the largest array of a type; an asynchronous start names its operand and its result."""
    return max((_array(*found) for found in _ARRAY.findall(type_text)), default=0)


def _bytes(type_text: str) -> int:
    """Bytes of all arrays of a type that live in the device's main memory."""
    return sum(_array(*found) for found in _ARRAY.findall(type_text) if "S(" not in found[2])


def _array(dtype: str, dims: str, _layout: str) -> int:
    return _width(dtype) * math.prod(int(n) for n in dims.split(",") if n)


def _width(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return 1 if bits is None else max(1, int(bits[0]) // 8)
