"""Preflight finds what is wrong with a node, one thing at a time, each with its mend; nothing here is pretended but
a peer's clock."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from ornith_jax.slurm import node, peers
from ornith_jax.slurm.node import Finding
from ornith_jax.slurm.preflight import skew, table
from rollout.ports import free_port
from tests.envs.conftest import base_image  # noqa: F401

ROOT = Path(__file__).resolve().parents[3]


def test_a_node_with_devices_is_told_from_one_without(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    found, facts = node.check_devices([sys.executable], "cpu", 2)
    assert (found.ok, found.said) == (True, "2 of 2, cpu")
    assert facts["jax"] != "none"
    assert set(facts) == {"python", "source", "jax", "jaxlib", "numpy"}
    missing, _ = node.check_devices([sys.executable], "cpu", 4)
    assert (missing.ok, missing.said) == (False, "2 of 4, cpu")


def test_a_node_without_accelerators_is_found(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    found, _ = node.check_devices([sys.executable], "gpu", 8)
    assert not found.ok
    assert found.said.startswith("0 of 8, none ")
    assert "does nvidia-smi show the devices" in found.mend


def test_an_interpreter_that_is_not_there_or_has_no_project_is_found(tmp_path):
    found, facts = node.check_devices([str(tmp_path / "python")], "cpu", 1)
    assert (found.ok, facts) == (False, {})
    assert "No such file" in found.said
    found, _ = node.check_devices(["env", "-C", str(tmp_path), "/usr/bin/python3", "-I"], "cpu", 1)
    assert not found.ok
    assert "No module named" in found.said or "Error while finding module" in found.said


def test_missing_apptainer_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = node.check_apptainer()
    assert not found.ok
    assert "ask the site for apptainer" in found.mend
    broken = tmp_path / "apptainer"
    broken.write_text("#!/bin/sh\necho no loader >&2; exit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert (node.check_apptainer().ok, node.check_apptainer().said) == (False, "no loader")


def test_user_namespaces_that_are_off_are_found(base_image, tmp_path):  # noqa: F811
    """Switched off for real: within a user namespace, whose own limit of further ones is set to none."""
    code = (
        "import json; from dataclasses import asdict; from ornith_jax.slurm.node import check_sandboxes;"
        "print(json.dumps([asdict(f) for f in check_sandboxes('auto')]))"
    )
    off = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", off, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = {one["check"]: one for one in json.loads(done.stdout.splitlines()[-1])}
    assert not found["user namespaces"]["ok"]
    assert "user.max_user_namespaces" in found["user namespaces"]["mend"]


def test_read_only_scratch_is_found(tmp_path):
    """Read-only for real, in a mount namespace: root may write whatever permissions say."""
    assert node.check_scratch(tmp_path / "new").ok
    code = (
        f"from ornith_jax.slurm.node import *; f = check_scratch(Path({str(tmp_path)!r})); print(f.ok, f.said, f.mend)"
    )
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, str(tmp_path), sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"False {tmp_path}: Read-only file system set `scratch` of the site to"), done.stderr


def test_a_full_disk_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(node, "SCRATCH_GB", shutil.disk_usage(tmp_path).free / node.GB + 1)
    assert not node.check_scratch(tmp_path).ok


def test_a_shared_folder_is_timed_and_one_that_cannot_be_made_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(node, "SHARED_GB", 0)
    assert node.check_shared(tmp_path / "runs").ok
    monkeypatch.setattr(node, "SLOW_S", 0.0)
    assert not node.check_shared(tmp_path / "runs").ok
    (tmp_path / "file").write_text("")
    assert "Not a directory" in node.check_shared(tmp_path / "file/runs").said


def test_a_port_in_use_is_found_and_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        found = node.check_ports((port, port))
        assert (found.ok, found.said) == (False, f"0 of {port}-{port} are free; in use: {port}")
        assert "ss -ltnp" in found.mend
    assert node.check_ports((port, port)).ok
    assert node.check_ports(()).ok


def report(**facts: str) -> dict:
    return {"findings": [asdict(Finding("devices", True, "8 of 8, gpu"))], "facts": facts}


def test_version_skew_between_nodes_and_between_tiers_is_found():
    nodes = {"n0": report(jax="0.10.2"), "n1": report(jax="0.10.2"), "n2": report(jax="0.10.1")}
    (found,) = skew(nodes, "learner")
    assert (found.check, found.said) == ("version of jax", "learner: 0.10.2 on most, but 0.10.1 on n2")
    one, other = report(source="aaa", jax="0.10.2"), report(source="bbb", jax="none")
    text, well = table({"learner": {"n0": one}, "driver": {"n1": other}}, {}, Path("logs"))
    assert not well
    assert "version of source" in text
    assert "version of jax" not in text, "a driver needs none"


def test_the_version_of_the_source_changes_with_any_line_of_it(tmp_path):
    for package in ("ornith_jax", "rollout", "envs", "experiments"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    ours = _facts(ROOT)
    assert _facts(tmp_path)["source"] == ours["source"]
    with (tmp_path / "rollout/reward.py").open("a") as file:
        file.write("\n")
    (found,) = skew({"n0": {"facts": ours}, "n1": {"facts": _facts(tmp_path)}}, "learner")
    assert found.check == "version of source"


def _facts(root: Path) -> dict:
    command = [sys.executable, "-m", "ornith_jax.slurm.facts"]
    return json.loads(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


def test_nodes_that_meet_are_well(tmp_path, monkeypatch):
    found = meet(tmp_path, monkeypatch, 3)
    assert [one.check for one in found[0]] == ["visibility", "network", "clock", "atomic rename"]
    assert all(one.ok for each in found for one in each)


def test_a_node_that_does_not_come_is_missed(tmp_path, monkeypatch):
    (found,) = meet(tmp_path, monkeypatch, 1, expected=2)
    assert not found[0].ok
    assert found[0].said.startswith("1 of 2 nodes seen")


def test_clocks_that_differ_are_found(tmp_path, monkeypatch):
    real = time.time
    ahead = threading.local()
    monkeypatch.setattr(peers.time, "time", lambda: real() + getattr(ahead, "by", 0))
    answer = peers._answer

    def late(server):
        ahead.by = 10
        answer(server)

    monkeypatch.setattr(peers, "_answer", late)  # every node tells others a time that is not its own
    found = meet(tmp_path, monkeypatch, 2)
    assert [one.ok for one in found[0]] == [True, True, False, True]
    assert "chrony" in found[0][2].mend


def test_a_node_that_cannot_be_reached_by_name_is_found(tmp_path):
    folder = tmp_path / "peers"
    (folder / "here").mkdir(parents=True)
    gone = {"node": "no-such-node.invalid", "port": 1}
    (folder / "here" / "gone.json").write_text(json.dumps(gone))
    found = peers.check_peers(folder, 2, node="localhost", meet_s=1)
    assert [one.ok for one in found] == [True, False, True, True]
    assert "no-such-node.invalid:1" in found[1].said


def test_renames_that_tear_are_found(tmp_path, monkeypatch):
    """As if a rename were a copy: a reader sees a part."""

    def slowly(path: Path, value: dict, *, durable: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
        time.sleep(0.005)
        path.write_text(json.dumps(value))

    (tmp_path / "renames").mkdir()
    monkeypatch.setattr(peers, "write_json", slowly)
    found = {}

    def run(name: str, other: str) -> None:
        found[name] = peers._renames(tmp_path / "renames", name, [other])

    threads = [threading.Thread(target=run, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not found["a"].ok
    assert "not object storage" in found["a"].mend


def meet(tmp_path: Path, monkeypatch, count: int, expected: int = 0) -> list[list[Finding]]:
    """That many nodes of names that resolve to this host, in threads."""
    found: list[list[Finding]] = [[] for _ in range(count)]
    names = ["localhost", "127.0.0.1", "127.0.0.2"][:count]

    def run(at: int) -> None:
        found[at] = peers.check_peers(
            tmp_path / "peers", expected or count, node=names[at], meet_s=1 if expected else 20
        )

    threads = [threading.Thread(target=run, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_port_is_chosen_among_those_that_are_allowed():
    with socket.create_server(("", 0)) as server:
        taken = server.getsockname()[1]
        assert free_port((taken, taken + 1)) == taken + 1
    assert free_port(()) > 1023


def test_the_command_on_one_node_prints_a_table_and_writes_a_report(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    words = ["preflight", "--tier", "learner", "--out", str(tmp_path / "out"), "--devices", "1"]
    words += ["--run-root", str(tmp_path), "--scratch", str(tmp_path / "scratch")]
    command = [sys.executable, "-m", "ornith_jax.cli", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[0] == "learner: 1 nodes", done.stderr
    assert "  ok    devices              1 of 1, cpu" in done.stdout
    assert len(list((tmp_path / "out").glob("*.report.json"))) == 1
