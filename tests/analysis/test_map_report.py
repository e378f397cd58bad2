import base64
import csv
import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from embedding_folders import blobs, write_embeddings
from ranks import run_ranks
from run_dirs import EVIL
from test_report import BROWSER, Page, open_in_browser

from matsci_hpc.analysis import map_page
from matsci_hpc.analysis.map_colors import COLORS, MOST_LOOKS, ClassColoring, colorings
from matsci_hpc.analysis.map_data import read_points
from matsci_hpc.analysis.map_report import FILES, MapSettings, write_map
from matsci_hpc.errors import UserInputError
from matsci_hpc.targets import TargetSpec

PCA = MapSettings(method="pca")


def targets_of(count, names, seed=0):
    """A number, a flag and a class, each of them sometimes absent."""
    rng = np.random.default_rng(seed)
    absent = np.arange(count) % 5 == 0
    number = np.where(absent, np.nan, rng.normal(size=count)).astype(np.float32)
    flag = np.where(absent, np.nan, rng.integers(0, 2, count)).astype(np.float32)
    kind = np.where(absent, -1, rng.integers(0, len(names), count)).astype(np.int16)
    return {
        "gap": (TargetSpec(kind="regression", unit="eV"), number),
        "metal": (TargetSpec(kind="binary"), flag),
        "family": (TargetSpec(kind="class", classes=tuple(names)), kind),
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same 120 samples before and after training."""
    folder = tmp_path_factory.mktemp("embeddings")
    targets = targets_of(120, ("oxide", "alloy", "halide"))
    made = []
    for name, distance, seed in (("before", 0.5, 3), ("after", 6.0, None)):
        embedding, numbers = blobs((40, 50, 30), distance)
        made.append(
            write_embeddings(
                folder / name, embedding, numbers, names=("mp", "carbon", "clouds"), targets=targets, untrained=seed
            )
        )
    return made


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("map") / "out"
    write_map(folders, out, PCA)
    return out


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Markup wherever a name can stand."""
    folder = tmp_path_factory.mktemp("evil") / "a<b>&'c"
    embedding, numbers = blobs((30, 30), 4.0)
    targets = targets_of(60, [f"{EVIL} {number}" for number in range(3)])
    targets = {f"{name} <i>": value for name, value in targets.items()} | {
        "=1+1": (TargetSpec(kind="regression", unit="<u>$x_{"), np.arange(60, dtype=np.float32))
    }
    write_embeddings(
        folder,
        embedding,
        numbers,
        names=(f"{EVIL} a", "$\\b_{"),
        targets=targets,
        ids=[f"{EVIL} {number}" for number in range(60)],
        formulas=[f"<b>{number}</b>" for number in range(60)],
        run=EVIL,
        notes=(EVIL,),
    )
    out = folder.with_name("out")
    write_map([folder], out, PCA)
    return out


def test_the_page_holds_what_was_found(written):
    page = Page((written / "map.html").read_text(encoding="utf-8"))
    record = json.loads((written / "map.json").read_text())
    before, after = (each["separation"] for each in record["maps"])
    for expected in (
        "3 data sets, 2 encoders, 240 embeddings",
        "untrained, as pretrain, seed 3",
        "pretrain, step 500",
        "not on the picture",
        "of the mean",
        "Who lies next to whom",
        f"{after['classes'][0]['purity']:.3f}",
        f"{before['classes'][0]['purity']:.3f}",
        f"{after['classes'][0]['probe']['accuracy']:.3f} ± {after['classes'][0]['probe']['spread']:.3f}",
        f"{100 * after['neighbors'][1][1]:.1f}",
    ):
        assert expected in page.text, expected
    tags = [tag for tag, _ in page.tags]
    assert tags.index("table") < tags.index("canvas")  # tables first
    assert [tag for tag, attributes in page.tags if attributes.get("class") == "plot"] == ["div", "div"]
    assert after["classes"][0]["purity"] > before["classes"][0]["purity"] + 0.2
    assert sorted(path.name for path in written.iterdir()) == sorted(FILES)
    assert (written / "map.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_hold_every_point_and_number(written, folders):
    with (written / "map.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 240
    points = read_points(folders)[1]
    after = [row for row in rows if row["encoder"] == "pretrain, step 500"]
    assert [row["id"] for row in after] == points.ids
    assert [row["data_set"] for row in after] == [points.data_sets[number] for number in points.data_set]
    gaps = [float(row["gap"]) if row["gap"] else np.nan for row in after]
    np.testing.assert_allclose(gaps, points.targets["gap"].values, rtol=1e-6)
    assert {row["family"] for row in after} == {"oxide", "alloy", "halide", ""}
    with (written / "separation.csv").open() as file:
        measured = {(row["encoder"], row["label"], row["measure"]): row for row in csv.DictReader(file)}
    record = json.loads((written / "map.json").read_text())["maps"][1]["separation"]
    found = measured["pretrain, step 500", "data set", "knn_purity"]
    assert float(found["value"]) == record["classes"][0]["purity"]
    assert float(found["without_structure"]) == record["classes"][0]["purity_by_chance"]
    assert measured["pretrain, step 500", "gap", "probe_mae"]["unit"] == "eV"
    assert len(measured) == 2 * (3 * 4 + 2)


def test_the_same_embeddings_give_the_same_bytes(written, folders, tmp_path):
    write_map(folders, tmp_path / "again", PCA)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes(), name


@pytest.mark.parametrize("name", ["written", "evil"])
def test_nothing_is_loaded_from_outside_and_only_our_script_stands_in_the_page(name, request):
    page = Page((request.getfixturevalue(name) / "map.html").read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "data", "action"} & set(attributes), tag
        assert not [attribute for attribute in attributes if attribute.startswith("on")], tag
        assert tag not in {"img", "iframe", "object", "embed", "link", "base"}
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "drawing"}, {}]
    assert "url(" not in "".join(page.raw["style"])


def test_markup_and_formulas_in_names_stay_text(evil):
    text = (evil / "map.html").read_text(encoding="utf-8")
    assert EVIL.lower() not in text.lower()
    assert Page(text).text.count(EVIL) >= 5
    drawing = re.search(r'id="drawing">(.*?)</script>', text, re.DOTALL)[1]
    assert "<" not in drawing
    assert json.loads(drawing)["maps"][0]["ids"][0].startswith(EVIL)
    cells = [cell for line in csv.reader((evil / "map.csv").open(newline="")) for cell in line]
    assert "'=1+1" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@"))]


HOVER = """
for (const plot of document.querySelectorAll(".plot")) {
  const canvas = plot.querySelector("canvas"), edge = canvas.getBoundingClientRect();
  const at = (x, y) => ({ clientX: edge.left + x, clientY: edge.top + y });
  const send = (x, y) => canvas.dispatchEvent(new PointerEvent("pointermove", at(x, y)));
  for (let x = 0; x < edge.width && plot.querySelector(".tip").style.display !== "block"; x += 8)
    for (let y = 0; y < edge.height && plot.querySelector(".tip").style.display !== "block"; y += 8) send(x, y);
}
const buttons = () => [...document.querySelectorAll("#legend button")];
const shown = () => buttons().map((each) => each.getAttribute("aria-pressed")).join();
document.querySelector("#legend button").click();
document.body.dataset.hidden = shown();
document.querySelector("#legend button").dispatchEvent(new MouseEvent("dblclick"));
document.body.dataset.alone = shown();
document.getElementById("all").click();
const select = document.getElementById("by");
const titles = [];
for (const option of select.options) {
  select.value = option.value;
  select.dispatchEvent(new Event("change"));
  titles.push(option.text + ":" + document.querySelectorAll("#legend li").length);
}
document.body.dataset.titles = JSON.stringify(titles);
"""


def with_script(path, script, folder):
    """A copy of a page with one more script, which its policy is made to allow."""
    text = path.read_text(encoding="utf-8")
    name = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{name}' ").replace(
        "</body>", f"<script>{script}</script></body>"
    )
    copy = folder / "with_script.html"
    copy.write_text(text, encoding="utf-8")
    return copy


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("name", ["written", "evil"])
def test_a_browser_draws_the_maps_and_tells_what_a_point_is(name, request, tmp_path):
    out = request.getfixturevalue(name)
    page, complaints = open_in_browser(with_script(out / "map.html", HOVER, tmp_path), tmp_path)
    assert complaints == []
    maps = 2 if name == "written" else 1
    assert f'data-drawn="{maps}"' in page
    tips = re.findall(r'<div class="tip" style="display: block;[^>]*><b>(.*?)</b>', page)
    assert len(tips) == maps
    known = {row["id"] for row in csv.DictReader((out / "map.csv").open(newline=""))}
    escaped = {each.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for each in known}
    assert set(tips) <= escaped
    assert "<img" not in page.replace("&lt;img", "")
    assert not re.search(r"<script>\s*alert", page)
    classes = 3 if name == "written" else 2
    assert f'data-hidden="{",".join(["false"] + ["true"] * (classes - 1))}"' in page
    assert f'data-alone="{",".join(["true"] + ["false"] * (classes - 1))}"' in page
    if name == "written":
        titles = '["data set:3","metal:3","family:4","gap / eV:2"]'.replace('"', "&quot;")
        assert f'data-titles="{titles}"' in page


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
def test_every_class_can_be_seen(written, tmp_path):
    from matplotlib.image import imread

    picture = tmp_path / "page.png"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,3000", "--virtual-time-budget=5000"]
    command += [f"--screenshot={picture}", (written / "map.html").as_uri()]
    subprocess.run(command, capture_output=True, timeout=50, check=True)
    pixels = np.rint(imread(picture)[..., :3] * 255)
    counts = {}
    for color in COLORS[:4]:
        wanted = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
        mixed = 255 + (wanted - 255) * 0.85  # marks are a little transparent
        counts[color] = int((np.abs(pixels - mixed).max(axis=-1) <= 3).sum())
    assert min(counts[color] for color in COLORS[:3]) > 400  # 60 marks in two maps, and more
    assert counts[COLORS[3]] < 20


@pytest.mark.parametrize("method", ["pca", pytest.param("umap", marks=pytest.mark.slow)])
def test_the_command_makes_a_map(folders, tmp_path, method):
    options = ["--method", "pca"] if method == "pca" else []  # UMAP is the default
    done = run_ranks(1, "map", *folders, "--out", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert f"pretrain, step 500: 120 samples by {method}" in done.stdout
    assert "data set: k-NN purity" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "map.html")
    assert json.loads((tmp_path / "out" / "map.json").read_text())["settings"]["method"] == method


def test_a_map_alone_needs_no_extra(folders, tmp_path):
    blocked = (
        "import sys; sys.modules['sklearn'] = sys.modules['umap'] = None\n"  # importing them is an error then
        "from pathlib import Path\n"
        "from matsci_hpc.analysis.map_report import MapSettings, write_map\n"
        "settings = MapSettings(method='pca', numbers=False)\n"
        "print(write_map([Path(each) for each in sys.argv[1:3]], Path(sys.argv[3]), settings).summary)\n"
    )
    command = [sys.executable, "-c", blocked, *map(str, folders), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "120 samples by pca" in done.stdout
    assert "The separation was not measured" in Page((tmp_path / "out/map.html").read_text(encoding="utf-8")).text


def test_what_differs_between_encoders_is_said(folders, tmp_path):
    embedding, numbers = blobs((20, 20), 1.0)
    other = write_embeddings(tmp_path / "other", embedding, numbers, run="other")
    write_map([folders[1], other], tmp_path / "out", MapSettings(method="pca", numbers=False))
    assert "have embedded different samples" in Page((tmp_path / "out/map.html").read_text(encoding="utf-8")).text


def test_too_few_samples_are_refused(tmp_path):
    few = write_embeddings(tmp_path / "few", [[1.0, 2.0], [2.0, 1.0]], [0, 1])
    with pytest.raises(UserInputError, match="a map needs three samples at least"):
        write_map([few], tmp_path / "out", PCA)


def test_of_many_points_some_are_drawn_and_the_table_has_all(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(map_page, "MOST_POINTS", 50)
    write_map(folders[1:], tmp_path / "out", MapSettings(method="pca", numbers=False))
    text = (tmp_path / "out/map.html").read_text(encoding="utf-8")
    drawing = json.loads(re.search(r'id="drawing">(.*?)</script>', text, re.DOTALL)[1])
    assert len(drawing["maps"][0]["x"]) == len(drawing["colorings"][0]["numbers"][0]) == 50
    assert "50 of 120 points are drawn here" in Page(text).text
    assert len((tmp_path / "out/map.csv").read_text().splitlines()) == 121
    ids = read_points(folders[1:])[0].ids
    for place, name in enumerate(drawing["maps"][0]["ids"]):
        number = drawing["colorings"][0]["numbers"][0][place]
        assert (
            drawing["colorings"][0]["names"][number]
            == ("mp", "carbon", "clouds")[(ids.index(name) >= 40) + (ids.index(name) >= 90)]
        )


def test_classes_have_looks_of_their_own_as_far_as_there_are_some(tmp_path):
    names = [f"group {number}" for number in range(40)]
    labels = np.repeat(np.arange(40), np.arange(1, 41)).astype(np.int16)
    embedding, numbers = blobs((len(labels),), 0.0)
    targets = {"group": (TargetSpec(kind="class", classes=tuple(names)), labels)}
    points = read_points([write_embeddings(tmp_path / "a", embedding, numbers, names=("one",), targets=targets)])
    _, found = colorings(points)
    assert isinstance(found, ClassColoring)
    assert found.names == tuple(reversed(names))[:MOST_LOOKS]
    assert found.counts[:2] == (40, 39)
    assert found.others == (40 - MOST_LOOKS, sum(range(1, 41 - MOST_LOOKS)))
    assert (found.numbers[0][labels == 0] == MOST_LOOKS).all()


def test_importing_the_commands_stays_light():
    heavy = {"numpy", "torch", "sklearn", "umap", "matplotlib", "h5py"}
    code = f"import sys, matsci_hpc.cli_embed; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
