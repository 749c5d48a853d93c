"""Nested advantages by the definition: for each member, look at every other one. No arrays, no shared code."""

from __future__ import annotations


def compare(reward, others, baseline, scale):
    """Advantage of one member against the others of its group (a list without it), or None without others."""
    if not others:
        return None
    everybody = [reward, *others]
    mean = sum(everybody) / len(everybody)
    reference = sum(others) / len(others) if baseline == "leave_one_out" else mean
    if scale == "none":
        return reward - reference
    deviation = (sum((r - mean) ** 2 for r in everybody) / len(everybody)) ** 0.5
    return (reward - reference) / deviation if deviation > 1e-12 else 0.0


def advantages(rows, settings, solutions_per_scaffold, self_arm=True):
    """rows: (id, scaffold index, kind), kind in passed failed vetoed flagged infra bad_scaffold.

    Returns ({id: A}, {scaffold index: A}).
    """
    out = {"flagged", "infra"} | ({"vetoed"} if settings.vetoed == "excluded" else set())
    valid = [row for row in rows if row[2] not in out]
    solved = [row for row in valid if row[2] != "bad_scaffold"]
    whole = settings.siblings == "task" or solutions_per_scaffold == 1 or not self_arm
    solutions, scaffolds, rewards = {}, {}, {}
    for me in solved:
        others = [r[2] == "passed" for r in solved if r is not me and (whole or r[1] == me[1])]
        found = compare(float(me[2] == "passed"), [float(o) for o in others], settings.baseline, settings.scale)
        if found is not None:
            solutions[me[0]] = found
    for _, index, _ in valid:
        children = [r for r in valid if r[1] == index]
        failed = any(r[2] == "bad_scaffold" for r in children)
        rewards[index] = 0.0 if failed else sum(r[2] == "passed" for r in children) / len(children)
    for index, reward in rewards.items() if self_arm else ():
        others = [r for i, r in rewards.items() if i != index]
        found = compare(reward, others, settings.baseline, settings.scale)
        if found is not None:
            scaffolds[index] = settings.scaffold_weight * found
    return solutions, scaffolds
