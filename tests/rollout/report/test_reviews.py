"""What people decide is kept: from a file, and through the live page."""

import asyncio
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer
from made import proposal, store, trajectory
from reading import read, section

from envs.types import Finding, Layer, Outcome, Verdict
from ornith_jax.cli import main
from rollout.errors import RolloutError
from rollout.report import review
from rollout.report.gather import Reader
from rollout.report.live import BODY_BYTES, Live
from rollout.report.page import render
from rollout.report.reviews import FILE, NOTE_CHARS, Review, add, parse, read_reviews, take
from rollout.statistics import wilson

ONE, TWO, THREE = (f"edge-1@0/0/{n}" for n in range(3))


@pytest.fixture
def run(tmp_path):
    under, other = proposal("edge-1@0"), proposal("spec-1@0", category="spec")
    store(tmp_path, [[trajectory(under, n) for n in range(3)], [trajectory(other, 0)]])
    return tmp_path


def test_the_last_word_of_a_reviewer_stands_and_torn_lines_do_not_count(run):
    said = [(ONE, "accept", "ann", 1), (ONE, "reject", "bob", 2), (ONE, "reject", "ann", 3), (TWO, "accept", "ann", 4)]
    for id, decision, name, when in said:
        add(run, Review(trajectory=id, decision=decision, reviewer=name, time=when))
        with (run / FILE).open("a") as file:
            file.write('{"trajectory": "edge')  # a kill; the next decision begins a new line
    found, bad = read_reviews(run)
    assert [(r.trajectory, r.decision, r.reviewer) for r in found] == [
        *((ONE, "reject", "bob"), (ONE, "reject", "ann"), (TWO, "accept", "ann"))
    ]
    assert bad == 3


def test_rates_are_by_category_with_wilsons_interval_and_disagreements_are_named(run):
    said = [
        (ONE, "accept", "ann", 1),
        (ONE, "reject", "bob", 2),
        (TWO, "accept", "ann", 3),
        (THREE, "accept", "ann", 4),
    ]
    said.append(("spec-1@0/0/0", "accept", "ann", 5))
    for id, decision, name, when in said:
        add(run, Review(trajectory=id, decision=decision, reviewer=name, time=when, note="why"))
    reader = Reader(run)
    found = reader.read()
    assert review.accepted(found) == [("edge", 2, 3), ("spec", 1, 1), ("all that passed", 3, 4)]
    assert review.disagreements(found) == [ONE]
    shown = section(read(render(reader, found)), "review")
    rate = wilson(2, 3)
    rows = shown.tables()["Decisions so far"]
    assert rows[0] == ["edge", "2", "3", f"66.7 % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"]
    assert [item.text for item in shown.all("li") if "by bob" in item.text] == ["reject by bob: why"]


def test_where_the_judge_was_unsure_people_are_asked_and_it_is_counted_apart(tmp_path):
    unsure = Finding(layer=Layer.JUDGE, rule="unsure", evidence="why 7?")
    under = proposal("edge-1@0")
    asked = trajectory(under, 0, verdict=Verdict(outcome=Outcome.FLAGGED, findings=(unsure,)))
    store(tmp_path, [[asked, trajectory(under, 1)]])
    add(tmp_path, Review(trajectory=asked.id, decision="accept"))
    reader = Reader(tmp_path)
    found = reader.read()
    assert review.queue(found) == [found.trajectories[0]]
    assert review.accepted(found) == [(review.OTHERS, 1, 1)]
    shown = section(read(render(reader, found)), "review")
    assert [one.attributes["data-trajectory"] for one in shown.all("div") if "data-trajectory" in one.attributes] == [
        *("edge-1@0/0/1", "edge-1@0/0/0")
    ]
    assert "judge unsure: why 7?" in shown.text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "not an object"),
        ({"trajectory": "x", "decision": "maybe"}, "decision is not one of accept, reject"),
        ({"decision": "accept"}, "trajectory is missing"),
        ({"trajectory": 3, "decision": "accept"}, "trajectory is not a text"),
        ({"trajectory": "x", "decision": "accept", "note": "a" * (NOTE_CHARS + 1)}, "note is not a text of at most"),
        ({"trajectory": "x", "decision": "accept", "time": "now"}, "time is not a number"),
        ({"trajectory": "x", "decision": "accept", "reward": 1}, "no field is called 'reward'"),
    ],
)
def test_what_is_no_decision_is_refused_by_name(value, told):
    with pytest.raises(RolloutError, match=f"here: .*{told}"):
        parse(value, "here")


def test_a_download_is_merged_once_whole_or_not_at_all(run, tmp_path, capsys):
    said = [{"trajectory": id, "decision": "accept", "time": 10.0, "note": "", "reviewer": "ann"} for id in (ONE, TWO)]
    file = tmp_path / "reviews.json"
    file.write_text(json.dumps(said))
    for count in (2, 0):
        assert main(["report", str(run), "--take", str(file), "--out", str(tmp_path / "a.html")]) == 0
        assert capsys.readouterr().out.startswith(f"{count} new decisions")
    add(run, Review(trajectory=ONE, decision="reject", reviewer="ann", time=11.0))
    assert take(run, file, [ONE, TWO]) == 0, "an older decision does not come back"
    assert [r.decision for r in read_reviews(run)[0]] == ["accept", "reject"]

    before = (run / FILE).read_bytes()
    file.write_text(json.dumps([{**said[0], "time": 12.0}, {**said[0], "trajectory": "another/0/0"}]))
    assert main(["report", str(run), "--take", str(file)]) == 2
    assert "'another/0/0' is no trajectory of" in capsys.readouterr().err
    for content in ("{", "{}"):
        file.write_text(content)
        assert main(["report", str(run), "--take", str(file)]) == 2
    assert main(["report", str(run), "--take", str(tmp_path / "nowhere.json")]) == 2
    assert (run / FILE).read_bytes() == before


def live(run, talk):
    """`talk(client)` with the server of a run."""

    async def session():
        async with TestClient(TestServer(Live(run, 10).app())) as client:
            return await talk(client)

    return asyncio.run(session())


def test_a_decision_through_the_live_page_is_on_disk_and_on_the_page(run):
    async def talk(client):
        first = read(await (await client.get("/")).text())
        stamp = await (await client.get("/stamp")).text()
        assert first.all("body")[0].attributes["data-stamp"] == stamp
        answer = await client.post("/reviews", json={"trajectory": TWO, "decision": "reject", "note": "<b>"})
        assert answer.status == 200
        (found,) = read_reviews(run)[0]
        assert (found.trajectory, found.decision, found.note) == (TWO, "reject", "<b>")
        assert found.time > 1e9, "the server's clock"
        assert await (await client.get("/stamp")).text() != stamp
        page = read(await (await client.get("/")).text())
        assert section(page, "review").tables()["Decisions so far"][-1][:3] == ["all that passed", "0", "1"]
        under = proposal("edge-9@0")
        await asyncio.to_thread(store, run, [[trajectory(under, 0)]])  # the run goes on
        answer = await client.post("/reviews", json={"trajectory": "edge-9@0/0/0", "decision": "accept"})
        assert answer.status == 200
        assert "edge-9@0/0/0" in await (await client.get("/")).text()

    live(run, talk)


def test_the_live_page_is_kept_until_the_run_moves(run, monkeypatch):
    made = []
    whole = render
    monkeypatch.setattr("rollout.report.page.render", lambda *a, **k: made.append(1) or whole(*a, **k))

    async def talk(client):
        for _ in range(3):
            assert (await client.get("/")).status == 200
        assert len(made) == 1
        add(run, Review(trajectory=ONE, decision="accept"))
        await client.get("/")
        assert len(made) == 2

    live(run, talk)


def test_the_server_takes_nothing_from_strangers(run):
    good = json.dumps({"trajectory": ONE, "decision": "accept"})
    json_type = {"Content-Type": "application/json"}

    async def talk(client):
        for body, headers, status in (
            (good, {"Content-Type": "text/plain"}, 415),
            (good, {**json_type, "Host": "evil.example"}, 403),
            ("{", json_type, 400),
            ("[" * 20_000, json_type, 400),
            (json.dumps({"trajectory": "nobody", "decision": "accept"}), json_type, 404),
            (good + " " * BODY_BYTES, json_type, 413),
        ):
            answer = await client.post("/reviews", data=body, headers=headers)
            assert answer.status == status
        assert (await client.get("/", headers={"Host": "evil.example"})).status == 403
        assert (await client.get("/", headers={"Host": "localhost:8000"})).status == 200
        assert (await client.get("/../config.json")).status == 404
        assert not (run / FILE).exists()

    live(run, talk)
