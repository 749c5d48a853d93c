"""Charts as files: every one of the page, each whole, and well-formed by itself."""

import xml.etree.ElementTree as ElementTree

import pytest
from made import whole_run

from ornith_jax.cli import main
from rollout.report.figures import figures
from rollout.report.gather import Reader
from rollout.report.page import render

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("figures") / "run", batches=6)


def test_every_figure_of_the_page_is_there_with_its_name_and_its_legend(run):
    reader = Reader(run)
    page = render(reader, reader.read())
    found = figures(page)
    assert len(found) == page.count("<figure>")
    read = {name: ElementTree.fromstring(svg) for name, svg in found.items()}
    words = ["".join(text.itertext()) for text in read["pass-rate.svg"].iter(f"{SVG}text")]
    assert {"Pass rate", "training groups", "batch"} <= set(words)
    assert all(root.tag == f"{SVG}svg" and root.findall(f"{SVG}style") for root in read.values())


def test_the_command_writes_them(run, tmp_path, capsys):
    folder = tmp_path / "new" / "figures"
    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--figures", str(folder)]) == 0
    written = sorted(folder.iterdir())
    assert f"{len(written)} figures in {folder}" in capsys.readouterr().out
    assert all(path.suffix == ".svg" for path in written)
