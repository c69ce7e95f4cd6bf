"""What a release is made of: wheel, sdist, workflows, citation; and the wheel runs where nothing else of this is."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet

import lightmuseg

WORKFLOWS = ["nightly.yml", "release.yml", "test.yml"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
VERSIONED = ("lightmuseg/__init__.py", "CITATION.cff", "bundle/configs/metadata.json", "CHANGELOG.md")


def build(source, output, *kinds):
    """Wheel or sdist of a source folder, made with the setuptools that is here."""
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", output, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def contents(wheel):
    """A wheel's files, name to bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def checkout(clean_copy, tmp_path_factory):
    """The repository's files, a file that is not Python in the package, and what running leaves behind."""
    target = clean_copy(tmp_path_factory.mktemp("checkout") / "repository")
    (target / "lightmuseg" / "data" / "example.json").write_text("{}")
    for name in ("lightmuseg/data/__pycache__/demo.cpython-311.pyc", "bundle/data/demo/tile.png", "bundle/output/x.pt"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"left behind")
    return target


@pytest.fixture(scope="module")
def packages(checkout, tmp_path_factory):
    """The folder of wheel and sdist, both built from the repository."""
    output = tmp_path_factory.mktemp("packages")
    build(checkout, output, "--sdist", "--wheel")
    return output


@pytest.fixture(scope="module")
def wheel(packages):
    return next(packages.glob("*.whl"))


def test_wheel_holds_the_package_the_bundle_and_nothing_else(wheel, checkout, root):
    files = {name: data for name, data in contents(wheel).items() if ".dist-info/" not in name}
    package = [path for path in (checkout / "lightmuseg").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    expected = {path.relative_to(checkout).as_posix(): path.read_bytes() for path in package}
    listed = subprocess.run(["git", "ls-files", "-z", "bundle"], cwd=root, capture_output=True, text=True, check=True)
    expected |= {f"lightmuseg/{name}": (root / name).read_bytes() for name in listed.stdout.split("\0") if name}
    assert files == expected
    assert wheel.name == f"lightmuseg-{lightmuseg.__version__}-py3-none-any.whl"


def test_wheel_describes_itself_by_the_standard(wheel, checkout):
    files = contents(wheel)
    folder = f"lightmuseg-{lightmuseg.__version__}.dist-info"
    # raises where a field is unknown, wrong or of another version of the standard
    described = Metadata.from_email(files[f"{folder}/METADATA"], validate=True)
    assert (described.name, str(described.version)) == ("lightmuseg", lightmuseg.__version__)
    assert described.license_expression == "Apache-2.0 AND BSD-3-Clause"
    assert files[f"{folder}/licenses/LICENSE"] == (checkout / "LICENSE").read_bytes()
    assert files[f"{folder}/entry_points.txt"].decode().split() == [
        "[console_scripts]", "lightmuseg", "=", "lightmuseg.cli:main"
    ]  # fmt: skip
    assert described.description_content_type == "text/markdown"
    # a package index shows the README, without the files that it links to
    targets = re.findall(r"\]\(([^)]*)\)", described.description)
    assert described.description.startswith("# LightMuSeg\n")
    assert targets
    assert not re.search("^!", described.description, re.MULTILINE)
    assert all(target.startswith("https://") for target in targets)
    assert "[" not in re.sub(
        r"\[[^]]*\]\(https://[^)]*\)|```.*?```|`[^`]*`", "", described.description, flags=re.DOTALL
    )


def test_sdist_holds_the_sources_of_the_same_wheel(packages, wheel, tmp_path):
    with tarfile.open(next(packages.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"lightmuseg-{lightmuseg.__version__}"
    beside = {path.name for path in source.iterdir()}
    made = {"PKG-INFO", "setup.cfg", "lightmuseg.egg-info"}
    kept = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
    assert beside - made == {*kept, "bundle", "lightmuseg"}
    build(source, tmp_path / "again", "--wheel")
    assert contents(tmp_path / "again" / wheel.name) == contents(wheel)


def test_version_is_the_same_everywhere(root):
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == lightmuseg.__version__
    metadata = json.loads((root / "bundle" / "configs" / "metadata.json").read_text())
    assert metadata["version"] == list(metadata["changelog"])[-1] == lightmuseg.__version__
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", lightmuseg.__version__)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert released == sorted(released, key=lambda text: tuple(map(int, text.split("."))), reverse=True)


def test_citation_is_well_formed_and_names_the_paper(root, run):
    status, stdout, stderr = run(
        "python", "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", "CITATION.cff"
    )
    assert status == 0, stdout + stderr
    paper = yaml.safe_load((root / "CITATION.cff").read_text())["preferred-citation"]
    references = json.loads((root / "bundle" / "configs" / "metadata.json").read_text())["references"]
    assert f"https://doi.org/{paper['doi']}" in references[0]
    assert paper["title"] in references[0]
    assert [author["family-names"] for author in paper["authors"]] == ["Muhammad", "Della Mea"]


def jobs(root, name):
    return yaml.safe_load((root / ".github" / "workflows" / name).read_text())["jobs"]


def shell(root, name):
    """What a workflow's steps run."""
    return [step["run"] for job in jobs(root, name).values() for step in job["steps"] if "run" in step]


def test_workflows_are_well_formed(root, run):
    files = sorted((root / ".github" / "workflows").glob("*.yml"))
    assert [path.name for path in files] == WORKFLOWS
    status, stdout, stderr = run(
        "python", "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *files
    )
    assert status == 0, stdout + stderr


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_call_what_is_there_with_the_least_rights(name, root):
    scripts = re.findall(r"scripts/\S+|tests/\S+", "\n".join(shell(root, name)))
    assert scripts
    assert [script for script in scripts if not (root / script).is_file()] == []
    workflow = yaml.safe_load((root / ".github" / "workflows" / name).read_text())
    assert workflow["permissions"] == {"contents": "read"}
    rights = {key: job["permissions"] for key, job in workflow["jobs"].items() if "permissions" in job}
    assert rights == ({"pypi": {"id-token": "write"}, "github": {"contents": "write"}} if name == "release.yml" else {})
    # an action is pinned to a major version at least
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+|[0-9a-f]{40})", action) for action in used)


def test_pythons_tested_are_those_that_setup_allows(root, wheel):
    described = Metadata.from_email(contents(wheel)[f"lightmuseg-{lightmuseg.__version__}.dist-info/METADATA"])
    assert jobs(root, "test.yml")["tests"]["strategy"]["matrix"]["python-version"] == PYTHONS
    assert [c.rpartition(" ")[2] for c in described.classifiers if re.search(r":: 3\.\d+$", c)] == PYTHONS
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}.1" in described.requires_python] == PYTHONS
    for name in WORKFLOWS:
        for job in jobs(root, name).values():
            named = [
                step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})
            ]
            assert all(version.startswith("${{") or version in SpecifierSet("~=3.10") for version in named)


@pytest.mark.parametrize("stale", [None, *VERSIONED])
def test_release_goes_on_only_where_the_tag_is_the_version_everywhere(stale, root, tmp_path):
    for name in VERSIONED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        text = (root / name).read_text().replace("## Unreleased", f"## {lightmuseg.__version__}")
        (tmp_path / name).write_text(text.replace(lightmuseg.__version__, "9.9.9") if name == stale else text)
    step = next(command for command in shell(root, "release.yml") if "__version__" in command)
    # as GitHub runs a step
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step],
        cwd=tmp_path,
        env={**os.environ, "GITHUB_REF_NAME": f"v{lightmuseg.__version__}"},
    )
    assert (done.returncode == 0) == (stale is None)


def test_notes_of_a_release_are_its_part_of_the_changelog(root, tmp_path):
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0\n\n- new\n- newer\n\n## 0.1.0\n\n- old\n")
    step = next(command for command in shell(root, "release.yml") if "awk" in command)
    for tag, notes in (("v0.2.0", "- new\n- newer"), ("v0.1.0", "- old")):
        environment = {**os.environ, "GITHUB_REF_NAME": tag}
        subprocess.run(["bash", "-eo", "pipefail", "-c", step], cwd=tmp_path, env=environment, check=True)
        assert (tmp_path / "dist" / "notes" / "notes.md").read_text().strip() == notes


@pytest.fixture(scope="module")
def installed(wheel, root, new_environment, tmp_path_factory):
    """A folder with a fresh environment, in it the wheel and what it needs, and a place to work."""
    folder = tmp_path_factory.mktemp("elsewhere é")
    pins = root / "requirements.txt"
    torch_pin = re.search("^torch==.+$", pins.read_text(), re.MULTILINE).group()
    # as in setup.sh; the pins are of Python 3.11 and above
    new_environment(folder / "venv", *([wheel, torch_pin, "-c", pins] if sys.version_info >= (3, 11) else [wheel]))
    (folder / "work").mkdir()
    return folder


@pytest.fixture(scope="module")
def call(installed):
    """Run a command of the fresh environment there; returns its stdout and stderr."""

    def call(program, *words):
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [installed / "venv" / "bin" / program, *words],
            cwd=installed / "work", env=inherited, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout, done.stderr

    return call


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_wheel_alone_is_installed_whole(call, installed, checkout):
    said, _ = call("python", "-c", "import lightmuseg as l; print(l.__file__); print(l.__version__)")
    place, version = said.splitlines()
    assert Path(place).is_relative_to(installed / "venv")
    assert version == lightmuseg.__version__
    assert "No broken requirements" in call("python", "-m", "pip", "check")[0]
    assert "segment" in "".join(call("lightmuseg", "--help"))
    # every module is importable with the core's dependencies alone: what an extra brings is imported where it is used;
    # the label app, the page and the guard of both need theirs as a whole
    modules = sorted(
        ".".join(path.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__")
        for path in (checkout / "lightmuseg").rglob("*.py")
        if not {"label", "view", "guard.py"} & set(path.parts)
    )
    call("python", "-W", "ignore", "-c", f"import importlib\nfor name in {modules}: importlib.import_module(name)")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_wheel_alone_is_all_that_a_newcomer_needs(data, call, installed, root):
    slide = data / "slides" / "CMU-1-Small-Region.svs"
    readme = (root / "README.md").read_text(encoding="utf-8")
    # the first of these two commands is what made the environment
    shell = re.search("```sh\n(.*?)```", readme, re.DOTALL).group(1)
    assert shell == "pip install lightmuseg\nlightmuseg segment slide.svs\n"
    assert call("lightmuseg", "--version")[0] == f"lightmuseg {lightmuseg.__version__}\n"
    models = call("lightmuseg", "models")[0]
    mpp = float(re.search(r"^tumor: tumor at ([\d.]+) um/px", models, re.MULTILINE)[1])
    assert "\ntissue: tumor, stroma, lymphocytic_infiltrate, necrosis_or_debris at " in models
    info = call("lightmuseg", "info")[0]
    assert f"lightmuseg {lightmuseg.__version__}" in info
    assert "pip install 'lightmuseg[slides]'" in info
    call("lightmuseg", "segment", slide, "--region", "0,0,600,600")
    results = installed / "work" / "lightmuseg_results" / "CMU-1-Small-Region"
    classes = tifffile.imread(results / "classes.tif")
    # of 2220 x 2967 pixels of 0.499 um, at twice the model's
    shape = tuple(round(side * 0.499 / mpp / 2) for side in (2967, 2220))
    assert np.abs(np.subtract(classes.shape, shape)).max() <= 1
    assert np.isin(classes, (0, 1)).all()
    assert (results / "measurements.csv").stat().st_size > 0
    door = re.search("```python\n(.*?)```", readme, re.DOTALL).group(1).replace("slide.svs", str(slide))
    picture = "import numpy as np\npixels = np.full((600, 700, 3), 240, np.uint8)"
    said, _ = call("python", "-W", "ignore", "-c", f"{picture}\n{door}\nprint(classes.shape, classes.dtype)")
    assert re.fullmatch(rf"[\d.]+ \d+ {re.escape(str(classes.shape))}\n\(600, 700\) uint8\n", said)
    call("lightmuseg", "cohort", slide, "--output", "cohort", "--region", "0,0,600,600")
    assert (installed / "work" / "cohort" / "cohort.csv").is_file()
    call("lightmuseg", "verify", "cohort")
    bundle = next((installed / "venv").glob("lib/python3*/site-packages/lightmuseg/bundle"))
    assert f"bundle: {bundle}" in info
    configs = bundle / "configs"
    files = ("--meta_file", configs / "metadata.json", "--config_file", configs / "inference.json")
    call("python", "-m", "monai.bundle", "verify_net_in_out", "network_def", *files, "--bundle_root", bundle)
