"""`ornith judge`: what a person sees."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs.guard.judge import Settings, open_judge
from ornith_jax.cli import main
from ornith_jax.judge.train import train_judge
from tests.ornith_jax.judge.small import SMALL
from tests.rollout.judging.requests import one


def test_a_folder_without_a_judge_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["judge", "serve", str(tmp_path)]) == 2
    assert "ornith judge train" in capsys.readouterr().err


def test_it_serves_until_it_is_told_to_stop_and_says_where(tmp_path: Path):
    model, where = train_judge(tmp_path / "judge", 0, SMALL).model, tmp_path / "card.json"
    command = [
        sys.executable,
        "-m",
        "ornith_jax.cli",
        "judge",
        "serve",
        str(model),
        "--port",
        "0",
        "--card",
        str(where),
    ]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 300
            while not where.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            found = json.loads(where.read_text())

            async def ask() -> str:
                judge = await open_judge(Settings(url=found["url"], model=found["model"], timeout_s=120))
                return (await judge(one("expert").episode)).verdict

            assert asyncio.run(ask()) in ("genuine", "gaming")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=120) == 0
        finally:
            process.kill()
