"""What asynchrony gives, in a few seconds: the whole measurement is `python -m benchmarks.rollout`."""

import asyncio

from benchmarks.rollout import utilisation


def test_long_tailed_lengths_leave_the_asynchronous_engine_busy(tmp_path):
    """Goals on an idle machine: 0.95, and 1.8 times the synchronous one; here with room for a busy one."""

    def share(max_staleness: int) -> float:
        return asyncio.run(utilisation(tmp_path, max_staleness=max_staleness, sigma=1.0, budget=6.0, updates=4))

    synchronous, asynchronous = share(0), share(4)
    assert asynchronous > 0.85
    assert asynchronous > 1.8 * synchronous
