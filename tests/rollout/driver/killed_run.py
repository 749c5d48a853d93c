"""A run of 75 groups of 2 x 2 with a learner in the same process: `python killed_run.py FOLDER`. Made to be killed.

FOLDER/log is the store, FOLDER/checkpoint.json the learner's, FOLDER/consumed.txt a line per group that it took:
"<its version> <group id> <version at admission>".
"""

import asyncio
import json
import os
import random
import sys
from pathlib import Path

from simulated import Simulation, driving, settings

from rollout.store.position import Position

GROUPS, PER_STEP, STALENESS = 75, 3, 2
SETTINGS = settings(groups_in_flight=2, groups_per_step=PER_STEP, max_staleness=STALENESS)


async def main(folder: Path) -> None:
    version, position = 0, Position()
    if (folder / "checkpoint.json").exists():
        saved = json.loads((folder / "checkpoint.json").read_text())
        version, position = saved["version"], Position.from_json(saved["position"])
    episodes = Simulation(lambda id: random.Random(id).uniform(0.01, 0.05))
    episodes.version = version
    options = {"policy_version": version, "position": position, "limit": GROUPS}
    async with driving(folder / "log", episodes, SETTINGS, count=10, **options) as driver:
        print("started", flush=True)
        step: list[str] = []
        async for group in driver.groups():
            with (folder / "consumed.txt").open("a") as file:
                file.write(f"{version} {group.id} {group.trajectories[0].admitted_version}\n")
            step.append(group.id)
            if len(step) == PER_STEP:
                driver.trained(step)
                version, step = version + 1, []
                save(folder, {"version": version, "position": driver.position.to_json()})
                episodes.version = version
                await driver.published(version)
    print("done", flush=True)


def save(folder: Path, checkpoint: dict) -> None:
    (folder / "checkpoint.tmp").write_text(json.dumps(checkpoint))
    os.replace(folder / "checkpoint.tmp", folder / "checkpoint.json")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
