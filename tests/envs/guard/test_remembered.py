"""The same work for the same task is graded once, and nothing else is taken for the same."""

import asyncio

from envs.guard.remembered import remembered
from envs.suites import fledgling
from envs.types import Episode, File, Finding, Layer, Outcome, Verdict

TASK, OTHER = fledgling.make("decoy", 1), fledgling.make("decoy", 2)
WORK = {"app/a.py": File(b"x = 1\n")}


class Grader:
    """A fake that counts; it answers with the outcomes that it was given, the last one for ever."""

    def __init__(self, *outcomes: Outcome, findings: tuple[Finding, ...] = ()) -> None:
        self.outcomes, self.findings, self.calls = list(outcomes), findings, 0

    async def __call__(self, episode: Episode) -> Verdict:
        self.calls += 1
        await asyncio.sleep(0.01)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        return Verdict(outcome=outcome, tests={"t": outcome.value}, findings=self.findings)


def graded(grader: Grader, *episodes: Episode, at_once: bool = False) -> list[Verdict]:
    async def main() -> list[Verdict]:
        grade = remembered(grader)
        if at_once:
            return list(await asyncio.gather(*(grade(episode) for episode in episodes)))
        return [await grade(episode) for episode in episodes]

    return asyncio.run(main())


def test_the_same_work_is_graded_once_even_when_it_comes_at_once():
    for at_once in (False, True):
        grader = Grader(Outcome.PASSED, Outcome.FAILED)
        verdicts = graded(grader, *[Episode(task=TASK, submission=WORK)] * 3, at_once=at_once)
        assert grader.calls == 1
        assert [v.outcome for v in verdicts] == [Outcome.PASSED] * 3
        assert [v.tests for v in verdicts] == [{"t": "passed"}] * 3
        assert ["graded" in v.record for v in verdicts] == [False, True, True]


def test_other_work_is_other_work():
    others = [
        Episode(task=TASK, submission=WORK),
        Episode(task=OTHER, submission=WORK),
        Episode(task=TASK, submission={"app/a.py": File(b"x = 1\n", executable=True)}),
        Episode(task=TASK, submission={"app/b.py": File(b"x = 1\n")}),
        Episode(task=TASK, submission={"app/a.py": File(b"x = 2\n")}),
        Episode(task=TASK, submission=WORK, deleted=("app/b.py",)),
        Episode(task=TASK),
    ]
    grader = Grader(Outcome.FAILED)
    graded(grader, *others)
    assert grader.calls == len(others)


def test_breakdowns_and_findings_are_not_remembered():
    broken = Grader(Outcome.INFRA, Outcome.PASSED)
    verdicts = graded(broken, *[Episode(task=TASK, submission=WORK)] * 3)
    assert [v.outcome for v in verdicts] == [Outcome.INFRA, Outcome.PASSED, Outcome.PASSED]
    assert broken.calls == 2
    flagged = Grader(Outcome.FLAGGED, findings=(Finding(layer=Layer.BOUNDARY, rule="x", evidence="y"),))
    graded(flagged, *[Episode(task=TASK, submission=WORK)] * 2)
    assert flagged.calls == 2
