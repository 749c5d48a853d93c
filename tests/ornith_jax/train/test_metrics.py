"""`metrics.jsonl`: what a kill leaves of it is still read, and a restart makes no line twice."""

import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.train.likelihood import likelihood_metrics
from ornith_jax.train.metrics import append, read, rewind
from ornith_jax.train.report import SKIPS_IN_A_ROW, Dispatched, Reporter


def test_records_come_back_and_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read(path) == []
    append(path, {"batch": 1, "loss": 0.1})
    append(path, {"batch": 2, "loss": float("nan"), "grad": float("inf")})
    assert read(path) == [{"batch": 1, "loss": 0.1}, {"batch": 2, "loss": None, "grad": None}]


def test_a_torn_line_is_as_if_it_were_never_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append(path, {"batch": 1, "loss": 0.1})
    append(path, {"batch": 2, "loss": 0.2})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        assert read(path) == [{"batch": 1, "loss": 0.1}]
    rewind(path, 2)
    append(path, {"batch": 2, "loss": 0.3})
    assert read(path) == [{"batch": 1, "loss": 0.1}, {"batch": 2, "loss": 0.3}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"batch": 1}\n{"bat\n{"batch": 3}\n')
    with pytest.raises(OrnithError, match=r"metrics\.jsonl, line 2: not JSON"):
        read(path)


def test_rewind_forgets_what_comes_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rewind(path, 0)
    for batch in range(1, 6):
        append(path, {"batch": batch})
    rewind(path, 3)
    assert [record["batch"] for record in read(path)] == [1, 2, 3]


def test_the_run_ends_when_too_many_batches_are_lost_in_a_row(tmp_path, capsys):
    def found(step: int, skipped: int) -> dict:
        sums = {"tokens": 4.0, "loss": 8.0, "entropy": 4.0}
        return {"sums": sums, "step": step, "optim/skipped": skipped, "optim/grad_norm": float("nan")}

    report = Reporter(tmp_path / "metrics.jsonl", 100, likelihood_metrics, skipped=3)
    batch = 0
    for skipped in (3, 4, 5, 6, 7, 7, *range(8, 8 + SKIPS_IN_A_ROW - 1)):  # four in a row, a good one, four in a row
        batch += 1
        report(Dispatched(batch, found(batch, skipped), 10, 0.5))
    with pytest.raises(OrnithError, match="not finite 5 times in a row"):
        report(Dispatched(batch + 1, found(batch, 8 + SKIPS_IN_A_ROW - 1), 10, 0.5))
    records = read(tmp_path / "metrics.jsonl")
    assert len(records) == batch + 1
    assert records[0]["loss"] == 2.0
    assert records[0]["optim/grad_norm"] is None
    assert records[0]["data/tokens"] == 10
    assert "batch 1/100  loss 2.0000" in capsys.readouterr().err
