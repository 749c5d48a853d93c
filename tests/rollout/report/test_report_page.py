"""The page as a whole: nothing that a policy wrote runs, it needs nothing else, and any wreck of a run gets one."""

import base64
import hashlib
import re
from dataclasses import replace

import pytest
from made import HOSTILE, TURN, evaluation, metrics, proposal, scaffold, store, trajectory, whole_run
from reading import Element, read, section

from envs.types import Finding, Layer, Outcome, Verdict
from ornith_jax.cli import main
from rollout.errors import RolloutError
from rollout.report import reviews
from rollout.report.gather import Reader, stamp
from rollout.report.html import duration, join, number, percent, tag, text
from rollout.report.page import render
from rollout.report.script import SCRIPT
from rollout.report.svg import MOST, Series, lines
from rollout.run_dir import BatchPlan, Events, write_json, write_plan


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("runs") / "run", batches=6)


def page_of(folder, **options) -> Element:
    reader = Reader(folder)
    return read(render(reader, reader.read(), **options))


def everything(page: Element) -> list[Element]:
    inner = [child for child in page.children if isinstance(child, Element)]
    return [page] + [found for child in inner for found in everything(child)]


def is_tame(page: Element) -> bool:
    """One script, ours; no picture, frame, form or link elsewhere; no handler in an attribute."""
    elements = everything(page)
    scripts = [one.text for one in elements if one.name == "script"]
    names = {one.name for one in elements}
    keys = {key for one in elements for key in one.attributes}
    links = {one.attributes["href"] for one in elements if "href" in one.attributes}
    return (
        scripts == [SCRIPT]
        and not names & {"img", "iframe", "object", "embed", "link", "base", "form", "video", "audio"}
        and not any(key.startswith("on") or key in ("src", "srcdoc", "style") for key in keys)
        and all(re.fullmatch(r"#\w+", link) for link in links)
    )


def test_every_section_is_there_and_the_links_lead_to_them(run):
    page = page_of(run)
    links = [link.attributes["href"][1:] for link in page.all("nav")[0].all("a")]
    assert links == [one.attributes["id"] for one in page.all("section")]
    assert is_tame(page)
    assert page.all("h1")[0].text == "made up"
    charts = page.all("svg")
    assert len(charts) > 20
    assert all(chart.attributes["role"] == "img" and chart.attributes["aria-label"] for chart in charts)
    assert len(section(page, "review").all("article")) == 24


def test_what_a_policy_wrote_stays_text_wherever_it_stands(tmp_path):
    under = proposal(f"{HOSTILE[:-30]}@0", document=scaffold(HOSTILE.replace("\ud800", "")), category=HOSTILE)
    said = tuple({"role": role, "name": HOSTILE, "content": HOSTILE, "stage": "solution"} for role in ("user", "tool"))
    called = {"role": "assistant", "tool_calls": [{"function": {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}}}]}
    finding = Finding(layer=Layer.JUDGE, rule=HOSTILE, evidence=HOSTILE)
    verdict = Verdict(outcome=Outcome.PASSED, findings=(finding,), tests={HOSTILE: HOSTILE}, record={"judge": HOSTILE})
    bad = [trajectory(under, place, verdict=verdict, messages=(*said, called), diff=f"+{HOSTILE}") for place in (0, 1)]
    lost = trajectory(under, 2, verdict=Verdict(outcome=Outcome.INFRA, cause=HOSTILE))
    store(tmp_path, [[*bad, lost]], {bad[0].group_id: HOSTILE})
    write_plan(tmp_path, BatchPlan(batch=1, groups=(bad[0].group_id,), policy_version=0))
    write_json(
        tmp_path / "config.json", {"name": HOSTILE, "model": HOSTILE, "seed": HOSTILE, "train": {"steps": HOSTILE}}
    )
    metrics(tmp_path, [{"batch": 1, "dropped/" + HOSTILE: 1.0, "loss": 1.0}])
    Events(tmp_path, "driver").add(HOSTILE, child=HOSTILE, **{HOSTILE: HOSTILE})
    write_json(tmp_path / "heartbeats" / "driver.json", {"time": 1.0, "host": HOSTILE, "doing": HOSTILE})
    evaluation(tmp_path, "one", 0, {"a": (HOSTILE.replace("\ud800", ""), 1)}, arm=HOSTILE)
    reviews.add(tmp_path, reviews.Review(trajectory=bad[0].id, decision="reject", note=HOSTILE, reviewer=HOSTILE))
    page = page_of(tmp_path)
    assert is_tame(page)
    assert page.text.count("<script>alert(1)</script>") > 20, "it is shown, as text"
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text
    assert r"\u{202e}\u{1b}[31m\u{d800}" in page.text


def test_the_browser_is_told_to_run_nothing_else(run):
    page = page_of(run)
    rules = next(one.attributes["content"] for one in page.all("meta") if "http-equiv" in one.attributes)
    digest = base64.b64encode(hashlib.sha256(page.all("script")[0].text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in rules
    digest = base64.b64encode(hashlib.sha256(page.all("style")[0].text.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in rules
    assert "default-src 'none'" in rules
    assert "connect-src 'none'" in rules
    assert "url(" not in page.all("style")[0].text


@pytest.mark.parametrize("only", ["config.json", "metrics.jsonl", "trajectories", "events", "evals"])
def test_a_run_that_has_only_one_part_gets_a_page_that_says_so(tmp_path, only):
    if only.endswith(("json", "jsonl")):
        (tmp_path / only).write_text("{}\n")
    else:
        (tmp_path / only).mkdir()
    page = page_of(tmp_path)
    assert is_tame(page)
    for id in ("learning", "categories", "scaffolds", "filter", "policy", "review"):
        assert "yet" in section(page, id).text
    assert "Nothing was trained yet" in page.all("header")[0].text


def test_a_killed_and_damaged_run_gets_a_page_that_names_what_is_missing(tmp_path):
    run = whole_run(tmp_path / "run", batches=3, groups=2)
    for name in ("metrics.jsonl", "events/driver.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"batch": 4, "lo')  # as a kill leaves it
    (run / "progress.json").unlink()
    (run / "evals" / "other.json").write_text("{}")
    (run / "evals" / "broken.json").write_text("not JSON")
    (run / "evals" / "foreign.json").write_text('{"pass@1": 1}')
    (run / "config.json").write_text("[1]")
    log = next((run / "trajectories").glob("*.log"))
    kept = log.read_bytes().split(b"\n")
    hurt = next(place for place, line in enumerate(kept) if b" trajectory " in line)
    kept[hurt] = kept[hurt].replace(b'"turns"', b'"Turns"', 1)
    log.write_bytes(b"\n".join(kept))
    before = len(Reader(run).read().trajectories)
    page = page_of(run)
    assert before == 6 * 12 - 1
    told = section(page, "happened").text
    assert "things in the run directory could not be read" in told
    for problem in ("byte", "the checksum differs", "broken.json: not JSON", "evals/foreign.json: not a result"):
        assert problem in told
    assert "metrics.jsonl" not in told, "a torn last line is what a kill leaves, not damage"


def test_a_folder_that_is_no_run_is_an_error_of_one_line(tmp_path, capsys):
    with pytest.raises(RolloutError, match="not a run directory"):
        Reader(tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert main(["report", str(tmp_path), "--sample", "-1"]) == 2
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == ["error"] * 3
    assert list(tmp_path.iterdir()) == []


def test_the_verb_writes_one_file_and_says_what_came_out(run, tmp_path, capsys):
    assert main(["report", str(run), "--out", str(tmp_path / "deep" / "a.html")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("The held-out pass rate (arm self) rose from ")
    assert out.endswith(f"{tmp_path / 'deep' / 'a.html'}\n")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.html"]
    assert is_tame(read((tmp_path / "deep" / "a.html").read_text()))


def test_a_reader_goes_on_where_the_log_went_on(tmp_path):
    under = proposal("edge-1@0")
    store(tmp_path, [[trajectory(under, 0)]])
    reader, first = Reader(tmp_path), stamp(tmp_path)
    assert len(reader.read().trajectories) == 1
    assert stamp(tmp_path) == first
    other = proposal("edge-1@1")
    store(tmp_path, [[trajectory(other, 0), trajectory(other, 1)]])
    assert stamp(tmp_path) != first
    assert [one.id for one in reader.read().trajectories] == ["edge-1@0/0/0", "edge-1@1/0/0", "edge-1@1/0/1"]
    assert reader.read().trajectories[0].messages == ()
    assert reader.whole("edge-1@1/0/1") == trajectory(other, 1)


def test_the_page_stays_small_whatever_was_written(tmp_path):
    under = proposal("edge-1@0")
    long = {"role": "tool", "name": "shell", "content": "a" * 3_000_000, "stage": "solution"}
    many = tuple({"role": "user", "content": "b" * 2000, "stage": "solution"} for _ in range(500))
    big = trajectory(under, 0, messages=(long, *many), diff="+c\n" * 100_000, turns=(TURN,) * 3)
    finding = Finding(layer=Layer.MONITOR, rule="r", evidence="d" * 1_000_000)
    flagged = replace(
        big, id="edge-1@0/0/1", solution_index=1, verdict=Verdict(outcome=Outcome.FLAGGED, findings=(finding,))
    )
    store(tmp_path, [[big, flagged]])
    reader = Reader(tmp_path)
    page = render(reader, reader.read())
    assert len(page) < 300_000
    assert "characters ..." in page
    assert "ornith show RUN edge-1@0/0/0 --full" in page


def test_words_and_numbers_as_people_read_them():
    assert [number(x) for x in (None, float("nan"), 0, 0.12345, 12345.6, 1e-7, -3)] == [
        *("–", "–", "0", "0.123", "12,346", "1e-07", "-3")
    ]
    assert [percent(x) for x in (0.1234, None)] == ["12.3 %", "–"]
    assert [duration(x) for x in (0.5, 75, 7265, None)] == ["0.5 s", "1 min 15 s", "2 h 01 min", "–"]
    assert text("a\u200bb\x00\n\tc") == "a\\u{200b}b\\u{0}\n\tc"
    assert text("x" * 100, 10) == "xxxxx\n[... 90 characters ...]\nxxxxx"
    assert tag("p", "1 < 2", None, [3, tag("b", "&")], class_='a"b', hidden=True, title=None) == (
        '<p class="a&quot;b" hidden>1 &lt; 2 3<b>&amp;</b></p>'.replace(" 3", "3")
    )
    assert join("<", tag("i")) == "&lt;<i></i>"


def test_long_lines_keep_their_extremes_and_short_ones_every_point():
    y = [0.0] * 5000
    y[1234] = 9.0
    drawn = read(f"<div>{lines([Series(name='loss', x=range(5000), y=y)], name='n', x_label='batch')}</div>")
    titles = [title.text for title in drawn.all("title")]
    assert len(titles) <= MOST
    assert any("(0 to 9)" in title for title in titles)
    short = read(f"<div>{lines([Series(name='loss', x=[1, 2], y=[0.5, 1.5])], name='n', x_label='batch')}</div>")
    assert [title.text for title in short.all("title")] == ["loss, batch 1: 0.5", "loss, batch 2: 1.5"]
    nothing = read(f"<div>{lines([], name='n', x_label='batch')}</div>")
    assert nothing.all("title") == []


def test_a_live_page_may_talk_to_its_own_server_and_a_file_to_nobody(run):
    page = page_of(run, stamp="abc")
    assert page.all("body")[0].attributes["data-stamp"] == "abc"
    rules = next(one.attributes["content"] for one in page.all("meta") if "http-equiv" in one.attributes)
    assert "connect-src 'self'" in rules
    assert "data-stamp" not in page_of(run).all("body")[0].attributes
