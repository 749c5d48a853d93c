"""The log on the disk: torn lines, flipped bytes, full disks, several files, followers."""

import asyncio
import dataclasses
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import pytest
from stored import trajectory

from rollout.errors import RolloutError
from rollout.store.frame import Damage, encode
from rollout.store.index import Index
from rollout.store.reader import Trajectories
from rollout.store.store import Store
from rollout.store.writer import Writer, cut_torn_tail
from rollout.types import Trajectory

IDS = [f"task {n}@0/0/0" for n in range(6)]


def small(id: str) -> Trajectory:
    return dataclasses.replace(trajectory(id, count=1, tokens=4), messages=())


def written(folder: Path, ids=IDS, make=trajectory, **options) -> Path:
    """A log with these trajectories; the path of its last file."""

    async def write() -> None:
        async with await Store.open(folder, **options) as store:
            for id in ids:
                assert await store.append("trajectory", id, make(id))

    asyncio.run(write())
    return max(folder.glob("*.log"))


def readable(folder: Path) -> dict[str, Trajectory]:
    source = Trajectories(folder)
    return {source[place].id: source[place] for place in range(len(source))}


def same(one: Trajectory, other: Trajectory) -> bool:
    return dataclasses.replace(one, messages=()) == dataclasses.replace(other, messages=())


def test_whatever_byte_a_kill_tears_at_the_acknowledged_records_stay(tmp_path, monkeypatch):
    """Every length from the end of the fourth record to the end of the file."""
    file = written(tmp_path / "whole", make=small)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of openings; the process is not killed here
    whole = file.read_bytes()
    ends = [entry.offset + entry.length for entry in sorted(found(file.parent), key=lambda entry: entry.offset)]
    folder = tmp_path / "torn"
    folder.mkdir()
    for length in range(ends[3], len(whole) + 1):
        (folder / file.name).write_bytes(whole[:length])
        complete = sum(end <= length for end in ends)
        assert len(found(folder)) == complete
        cut = cut_torn_tail(folder / file.name)
        assert length - cut == ends[complete - 1]
        assert (folder / file.name).read_bytes() == whole[: ends[complete - 1]]


def found(folder: Path):
    index = Index(folder)
    index.refresh()
    assert not index.damaged
    return list(index.entries.values())


def test_a_torn_line_is_written_again_after_the_next_opening(tmp_path):
    file = written(tmp_path)
    os.truncate(file, file.stat().st_size - 100)
    written(tmp_path, IDS[-1:])  # asserts that the last one is not there any more
    assert list(readable(tmp_path)) == IDS
    assert Index(tmp_path).refresh() == sorted(found(tmp_path), key=lambda entry: (entry.file, entry.offset))


def test_every_flipped_byte_is_found_and_costs_no_other_record(tmp_path):
    file = written(tmp_path, IDS[:3], small)
    whole = file.read_bytes()
    first, second, third = found(tmp_path)
    for place in range(second.offset, third.offset):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        index = Index(tmp_path)
        index.refresh()
        assert index.damaged, f"byte {place} is not missed"
        assert index.damaged[0].offset == second.offset
        left = set(index.entries.values())
        assert first in left
        # the newline between two records is a byte too: without it both are one damaged line
        assert left - {first} == (set() if place == third.offset - 1 else {third})
    source = Trajectories(tmp_path)
    assert "driver0-000001.log: byte" in source.damaged[0]


def test_damage_after_the_scan_is_named_when_the_record_is_read(tmp_path):
    file = written(tmp_path, IDS[:2])
    source = Trajectories(tmp_path)
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    assert source[0].id == IDS[0]
    with pytest.raises(RolloutError, match=r"driver0-000001.log at byte \d+: trajectory 'task 1@0/0/0' is damaged"):
        source[1]


def test_an_id_is_stored_once_also_over_a_restart_and_when_asked_at_the_same_time(tmp_path):
    async def write() -> list[bool]:
        async with await Store.open(tmp_path) as store:
            return await asyncio.gather(*(store.append("trajectory", IDS[0], trajectory(IDS[0])) for _ in range(9)))

    assert sorted(asyncio.run(write())) == [False] * 8 + [True]
    assert not any(asyncio.run(write()))
    assert list(readable(tmp_path)) == IDS[:1]


def test_one_value_that_cannot_be_encoded_fails_alone(tmp_path):
    async def write() -> list:
        async with await Store.open(tmp_path) as store:
            values = [trajectory(IDS[0]), {"bad": {1}}, trajectory(IDS[2])]
            jobs = (store.append("trajectory", id, value) for id, value in zip(IDS, values, strict=False))
            return await asyncio.gather(*jobs, return_exceptions=True)

    first, bad, third = asyncio.run(write())
    assert (first, third) == (True, True)
    assert isinstance(bad, RolloutError)
    assert list(readable(tmp_path)) == [IDS[0], IDS[2]]


def test_records_that_arrive_together_share_their_fsync(tmp_path, monkeypatch):
    calls, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append(file), fsync(file)))

    async def write() -> None:
        async with await Store.open(tmp_path) as store:
            await asyncio.gather(*(store.append("admitted", f"t@{n}", {"number": n}) for n in range(200)))

    asyncio.run(write())
    assert len(calls) < 10
    assert len(found(tmp_path)) == 200


def test_a_record_is_answered_for_only_after_its_fsync(tmp_path, monkeypatch):
    events, fsync = [], os.fsync

    def watched(file: int) -> None:
        time.sleep(0.02)
        fsync(file)
        events.append("fsync")

    monkeypatch.setattr(os, "fsync", watched)

    async def write() -> None:
        async with await Store.open(tmp_path) as store:
            for number in range(3):
                await store.append("admitted", f"t@{number}", {})
                events.append("answer")

    asyncio.run(write())
    assert events == ["fsync", "fsync", "answer", "fsync", "answer", "fsync", "answer"], "the folder's, then one each"


def test_a_full_disk_fails_the_call_and_nothing_else(tmp_path):
    """A real one: the kernel refuses to let the file grow (RLIMIT_FSIZE), in the middle of a record."""

    async def write() -> None:
        async with await Store.open(tmp_path) as store:
            await store.append("trajectory", IDS[0], trajectory(IDS[0]))
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            size = max(tmp_path.glob("*.log")).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, hard))
            try:
                with pytest.raises(OSError, match="File too large"):
                    await store.append("trajectory", IDS[1], trajectory(IDS[1]))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert not store.has("trajectory", IDS[1])
            assert await store.append("trajectory", IDS[1], trajectory(IDS[1]))

    asyncio.run(write())
    assert not Trajectories(tmp_path).damaged
    assert all(same(value, trajectory(id)) for id, value in readable(tmp_path).items())
    assert list(readable(tmp_path)) == IDS[:2]


def test_a_log_in_many_files_by_two_writers_reads_as_one(tmp_path):
    written(tmp_path, IDS[:3], name="driver0", segment_bytes=1)
    written(tmp_path, IDS[3:], name="driver1", segment_bytes=1)
    assert len(list(tmp_path.glob("*.log"))) == 6
    assert list(readable(tmp_path)) == IDS
    with pytest.raises(RolloutError, match="small letters"):
        Writer(tmp_path, "../driver")


def test_a_follower_waits_for_the_rest_of_a_line(tmp_path):
    line = encode("trajectory", "t@0/0/0", {"a": 1})
    index = Index(tmp_path)
    file = tmp_path / "driver0-000001.log"
    for end in (0, 1, 25, len(line) - 1):
        file.write_bytes(line[:end])
        assert index.refresh() == []
    file.write_bytes(line + line[:30])
    assert [entry.id for entry in index.refresh()] == ["t@0/0/0"]
    file.write_bytes(line + line)
    assert (index.refresh(), index.repeated, index.damaged) == ([], 1, [])
    assert index.read("trajectory", "t@0/0/0") == {"a": 1}
    with pytest.raises(RolloutError, match=r"no trajectory 'no'; it has 1, such as 't@0/0/0'"):
        index.read("trajectory", "no")


def test_a_line_of_another_schema_is_refused(tmp_path):
    line = encode("trajectory", "t@0/0/0", {"schema": 2})
    (tmp_path / "driver0-000001.log").write_bytes(line)
    with pytest.raises(RolloutError, match="another version of ornith-jax"):
        Trajectories(tmp_path)[0]
    assert not isinstance(Index(tmp_path).refresh()[0], Damage)


def test_grain_reads_the_log_in_a_shuffled_order(tmp_path):
    written(tmp_path, segment_bytes=1)
    source = pickle.loads(pickle.dumps(Trajectories(tmp_path)))
    order = [t.id for t in grain.MapDataset.source(source).shuffle(seed=3)]
    assert sorted(order) == IDS
    assert order != IDS
    with pytest.raises(RolloutError, match="no such folder"):
        Trajectories(tmp_path / "nowhere")


WRITER = """
import asyncio, sys
from pathlib import Path
from rollout.store.store import Store

async def main():
    async with await Store.open(Path(sys.argv[1])) as store:
        async def keep(n):
            await store.append("admitted", f"t@{n}", {"number": n, "text": "x" * (n % 5000)})
            print(n, flush=True)
        start = len(store.index.entries)
        for n in range(start, start + 100000, 8):
            await asyncio.gather(*(keep(n + k) for k in range(8)))

asyncio.run(main())
"""


def test_no_acknowledged_record_is_lost_to_kill_minus_nine(tmp_path):
    acknowledged: set[str] = set()
    for round in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(0.02 + 0.06 * round)
        process.send_signal(signal.SIGKILL)
        acknowledged.update((first + process.stdout.read()).decode().split("\n")[:-1])
        process.wait(timeout=10)
        process.stdout.close()
        for path in tmp_path.glob("*.log"):
            cut_torn_tail(path)
        assert {f"t@{n}" for n in acknowledged} <= {entry.id for entry in found(tmp_path)}
    assert len(acknowledged) > 20


def test_the_event_loop_goes_on_while_large_records_are_stored(tmp_path):
    """Four records of a few MB. Encoded on the loop they would stop it for as long as the encoding takes."""
    large = [trajectory(f"t@{n}/0/0", count=4, tokens=60_000) for n in range(4)]
    lags: list[float] = []

    async def monitor() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    async def write() -> float:
        async with await Store.open(tmp_path) as store:
            watch = asyncio.create_task(monitor())
            began = time.perf_counter()
            await asyncio.gather(*(store.append("trajectory", t.id, t) for t in large))
            watch.cancel()
            return time.perf_counter() - began

    seconds = asyncio.run(write())
    assert max(lags) < seconds / 2, f"the loop stood still for {max(lags):.3f} s of {seconds:.3f}"
