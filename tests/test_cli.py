import json

import numpy as np
import pytest
from PIL import Image

CLI = ("python", "-m", "lightmuseg.cli")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["prepare", "segment"]),
        (["prepare"], ["bcss", "demo"]),
        (
            ["prepare", "bcss"],
            ["SOURCE", "OUTPUT", "--masks", "--mask_coding", "--val", "--test", "--val_fraction", "--test_fraction",
             "--seed", "--tile_size", "--min_annotated"],
        ),
        (["prepare", "demo"], ["--output", "--wheels"]),
        (["segment"], ["SLIDE", "OUTPUT", "--model", "--bundle", "--mpp"]),
    ],
)  # fmt: skip
def test_help_names_commands_and_options(run, words, named):
    status, stdout, stderr = run(*CLI, *words, "--help")
    assert status == 0
    assert [name for name in named if name not in stdout + stderr] == []


@pytest.mark.parametrize("words", ["prepare bcss", "prepare bcss source", "segment", "segment a.png"])
def test_missing_argument_is_an_error(run, words):
    status, _, stderr = run(*CLI, *words.split())
    assert status != 0
    assert "Traceback" not in stderr


def write_regions(folder):
    """Four regions of four patients, the codes 1 to 3; the masks in a folder named like a number."""
    for kind in ("rgbs", "2024"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for patient in ("A1", "B2", "C3", "D4"):
        name = f"TCGA-{patient}-0000-DX1_xmin10_ymin20_MPP-0.2500.png"
        Image.fromarray(rng.integers(0, 256, (90, 130, 3), dtype=np.uint8)).save(folder / "rgbs" / name)
        Image.fromarray(rng.integers(1, 4, (90, 130), dtype=np.uint8)).save(folder / "2024" / name)
    return sorted((folder / "rgbs").iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of inputs, good and bad."""
    place = tmp_path_factory.mktemp("Ablage ß 1")
    write_regions(place / "1e5")
    damaged = write_regions(place / "damaged")[2]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (place / "text.svs").write_text("not a slide")
    Image.new("RGB", (40, 30)).save(place / "picture.png")
    return place


BAD = {
    "missing source": ["prepare", "bcss", "nowhere", "out"],
    "not a number": ["prepare", "bcss", "1e5", "out", "--masks", "2024", "--tile_size", "large"],
    "not a finite number": ["prepare", "bcss", "1e5", "out", "--masks", "2024", "--val_fraction", "nan"],
    "text as slide": ["segment", "text.svs", "out", "--bundle", "{bundle}"],
    "missing bundle": ["segment", "picture.png", "out", "--bundle", "nowhere"],
    "no um per pixel": ["segment", "picture.png", "out", "--bundle", "{bundle}"],
    "not an um per pixel": ["segment", "picture.png", "out", "--mpp", "fine"],
    "missing weights": ["segment", "picture.png", "out", "--bundle", "{bundle}", "--model", "no.pt", "--mpp", "0.25"],
}
MISSPELT = ["prepare", "bcss", "1e5", "misspelt", "--masks", "2024", "--min_anotated", "0.5"]

# Importing the libraries takes seconds: once for all commands, of which each then is a process of its own.
EACH_IN_A_PROCESS = """
import json, os, sys
import lightmuseg.cli, lightmuseg.data.prepare, lightmuseg.slides.segment
statuses = []
for number, words in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ["lightmuseg", *words]
        lightmuseg.cli.main()
        sys.exit()
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def results(run, root, place):
    """Exit status and stderr of the commands that must fail, run in the folder of inputs."""
    commands = [[word.format(bundle=root / "bundle") for word in words] for words in (*BAD.values(), MISSPELT)]
    status, stdout, stderr = run("python", "-c", EACH_IN_A_PROCESS, json.dumps(commands), cwd=place)
    assert status == 0, stderr
    errors = [(place / f"{number}.stderr").read_text(encoding="utf-8") for number in range(len(commands))]
    return dict(zip((*BAD, "misspelt option"), zip(json.loads(stdout.splitlines()[-1]), errors)))


def assert_one_line(status, stderr, named):
    assert status == 1
    assert "Traceback" not in stderr
    faults = [line for line in stderr.splitlines() if "error" in line.lower() and "nv" not in line]
    assert len(faults) == 1
    assert faults[0].startswith("lightmuseg: error: ")
    assert named in faults[0]


def test_paths_may_look_like_numbers_and_hold_spaces_and_any_letters(run, place):
    output = place / "Kacheln ü 1"
    options = ("--masks", "2024", "--test", "TCGA-B2-0000", "--tile_size=64")
    status, stdout, stderr = run(*CLI, "prepare", "bcss", "1e5", output, *options, cwd=place)
    assert status == 0, stderr
    assert stdout.strip() == f"{output}: 18 train tiles, 0 val tiles, 6 test tiles"
    tiles = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["tiles"]
    assert {tile["patient"] for tile in tiles if tile["split"] == "test"} == {"TCGA-B2-0000"}


def test_damaged_source_ends_in_one_line_that_names_it(run, place):
    status, _, stderr = run(*CLI, "prepare", "bcss", "damaged", "out", "--masks", "2024", cwd=place)
    assert_one_line(status, stderr, "damaged/rgbs/TCGA-C3-0000-DX1_xmin10_ymin20_MPP-0.2500.png")
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("missing source", "nowhere"),
        ("not a number", "large"),
        ("not a finite number", "nan"),
        ("text as slide", "text.svs"),
        ("missing bundle", "nowhere"),
        ("no um per pixel", "picture.png"),
        ("not an um per pixel", "fine"),
        ("missing weights", "no.pt"),
    ],
)
def test_bad_input_ends_in_one_line(results, command, named):
    assert_one_line(*results[command], named)


def test_misspelt_option_is_refused_before_anything_is_written(results, place):
    status, stderr = results["misspelt option"]
    assert status != 0
    assert "min_anotated" in stderr
    assert not (place / "misspelt").exists()
