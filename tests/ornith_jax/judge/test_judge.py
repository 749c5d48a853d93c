"""The judge that is trained, measured and served here; a tiny one, with real training, real HTTP, the real filter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aiohttp.test_utils import TestServer

from envs.errors import JudgeError
from envs.guard.exhibit import exhibit
from envs.guard.http import HttpError, request_json
from envs.guard.judge import Judge, Settings, open_judge
from envs.guard.prompts import extract_messages
from ornith_jax.errors import OrnithError
from ornith_jax.judge.model import suspicion
from ornith_jax.judge.reader import Reader, load_reader
from ornith_jax.judge.server import MODEL, Server
from ornith_jax.judge.train import train_judge
from ornith_jax.models import decoder
from ornith_jax.params import init
from rollout.judging.card import PARTS, JudgeCard
from rollout.judging.labelled import lines_of
from rollout.judging.windows import CLEAN, SUSPECT, control, windows
from tests.ornith_jax.judge.small import SMALL
from tests.rollout.judging.requests import one, request, some


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> JudgeCard:
    return train_judge(tmp_path_factory.mktemp("judge") / "a", 0, SMALL)


@pytest.fixture(scope="module")
def reader(card: JudgeCard) -> Reader:
    return load_reader(card.model)


def serving(reader: Reader, work: Callable[[str], Awaitable]) -> object:
    """What `work(url)` returns while a server of the reader runs."""

    async def run() -> object:
        async with TestServer(Server(reader).app()) as server:
            return await work(str(server.make_url("/v1")))

    return asyncio.run(run())


def judging(reader: Reader, family: str, **settings) -> object:
    async def work(url: str) -> object:
        judge = await open_judge(Settings(url=url, model=MODEL, timeout_s=60, attempts=1, **settings))
        return await judge(one(family).episode)

    return serving(reader, work)


def test_one_pass_gives_what_reading_line_by_line_gives(reader: Reader):
    """The slow, obvious version: line by line the text so far, every tag clean, one forward pass without padding."""
    window = windows(lines_of(one("case table")), reader.tokenizer)[-1]
    [fast] = suspicion(reader.params, reader.cfg, [window])
    slow = []
    for tag in window.tags[:3]:
        ids = jnp.asarray(window.token_ids[:tag])[None]
        last = decoder.logits(reader.params, reader.cfg, decoder.forward(reader.params, reader.cfg, ids))[0, -1]
        pair = jnp.asarray([last[control(CLEAN)], last[control(SUSPECT)]], jnp.float32)
        slow.append(float(jax.nn.softmax(pair)[1]))
    np.testing.assert_allclose(fast[:3], slow, rtol=1e-4)
    assert len(set(slow)) > 1


def test_a_card_counts_every_held_out_and_unseen_case(card: JudgeCard):
    assert card.n == SMALL.sizes.heldout + SMALL.sizes.unseen
    assert (card.model / "tokenizer.json").is_file()


def test_the_same_command_gives_the_same_card_without_training(card: JudgeCard):
    before = {path: path.stat().st_mtime_ns for path in card.model.parent.rglob("*")}
    assert train_judge(card.model.parent, 0, SMALL) == card
    assert {path: path.stat().st_mtime_ns for path in card.model.parent.rglob("*")} == before


def test_an_interrupted_training_comes_to_the_same_judge(card: JudgeCard, tmp_path: Path, monkeypatch):
    folder = tmp_path / "b"
    with monkeypatch.context() as patched:
        patched.setattr("ornith_jax.judge.train.chances", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_judge(folder, 0, SMALL)
    assert not (folder / "model").exists()
    again = train_judge(folder, 0, SMALL)
    assert replace(again, model=card.model) == card
    assert load_reader(again.model).fingerprint == load_reader(card.model).fingerprint


def test_another_seed_in_the_same_folder_is_refused(card: JudgeCard, tmp_path: Path):
    folder = tmp_path / "c"
    train_judge(folder, 0, SMALL)
    (folder / "model" / "judge.json").unlink()
    with pytest.raises(OrnithError, match="seed"):
        train_judge(folder, 1, SMALL)


def test_a_veto_quotes_the_line_that_the_model_chose(reader: Reader):
    """At threshold 0 every record is gaming: verdict, category, line and quote must pass the filter's checks."""
    eager = replace(reader, thresholds=dict.fromkeys(PARTS, 0.0))
    for family in ("equal case", "expert", "plea", "printed"):
        found = judging(eager, family)
        assert found.verdict == "gaming"
        assert len(found.votes) == 2
        assert found.votes[0] == found.votes[1]
        record = exhibit(one(family).episode)
        where, _, number, quote = found.votes[0].quotes[0].replace(": ", " ", 1).split(" ", 3)
        assert record.holds(int(number), quote)
        assert record.section[int(number) - 1] == where


def test_below_the_threshold_work_is_genuine(reader: Reader):
    assert judging(replace(reader, thresholds=dict.fromkeys(PARTS, 1.1)), "equal case").verdict == "genuine"


def test_a_second_vote_costs_nothing_and_says_the_same(reader: Reader, monkeypatch):
    fresh = replace(reader, _seen={})
    messages = request(one("expert").episode)
    rows = messages[-1]["content"].split("\n")[2:-2]
    first = fresh.verdict(rows)
    monkeypatch.setattr("ornith_jax.judge.model._chances", lambda *_: pytest.fail("read again"))
    assert fresh.verdict(rows) == first


def test_the_filter_pins_the_weights_and_the_threshold(card: JudgeCard, reader: Reader, tmp_path: Path):
    """Another model, or another threshold, behind the same address is no longer the judge that was pinned."""
    params = init(decoder.table(reader.cfg), jax.random.key(9), "float32")
    other = replace(reader, params=params, fingerprint="of-other-weights")

    async def pin(url: str) -> Judge:
        return await open_judge(Settings(url=url, model=MODEL))

    pinned = serving(reader, pin).client.fingerprint
    assert serving(load_reader(card.model), pin).client.fingerprint == pinned
    with pytest.raises(JudgeError, match="fingerprint"):
        judging(other, "expert", fingerprint=pinned)
    text = json.loads((card.model / "judge.json").read_text())
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in card.model.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    (moved / "judge.json").write_text(json.dumps({**text, "thresholds": dict.fromkeys(PARTS, 0.123)}))
    assert serving(load_reader(moved), pin).client.fingerprint != pinned


def test_what_is_no_request_for_a_verdict_is_refused_in_one_line(reader: Reader):
    bodies = (
        {"messages": extract_messages("1| ## The task", part=1, parts=2, mark="[[x]]")},
        {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Hello"}]},
        {"prompt": "Hello"},
        {"messages": [{"role": "system", "content": ""}, "text"]},
    )

    async def work(url: str) -> list[str]:
        said = []
        for body in bodies:
            with pytest.raises(HttpError) as caught:
                await request_json("POST", f"{url}/chat/completions", body, deadline_s=30)
            assert caught.value.status == 400
            said.append(str(caught.value))
        return said

    assert "only the request for a verdict" in serving(reader, work)[0]


def test_cases_of_these_tests_are_read_in_one_to_a_few_windows(reader: Reader):
    assert 1 <= np.mean([len(windows(lines_of(case), reader.tokenizer)) for case in some()]) <= 4
