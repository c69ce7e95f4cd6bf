"""The page on active learning: its commands run, and MONAI Label's own app serves the exported bundle."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import tifffile

from lightmuseg.provenance import sha256_of

pytestmark = pytest.mark.label


def test_commands_of_the_page(serve, root, data, tmp_path):
    text = (root / "docs" / "label.md").read_text(encoding="utf-8")
    start, *requests = [
        line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    assert start == "bash scripts/label.sh slides"
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(data / "slides" / "CMU-1-Small-Region.svs", folder / "cmu_small_region.svs")
    server = serve(folder, "--conf", "patches", "2")
    for line in requests:
        command = line.replace("http://127.0.0.1:8000", server.address)
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, line + done.stdout + done.stderr
    assert (
        server("GET", "/datastore/label?label=cmu_small_region&tag=final").content
        == (tmp_path / "regions.geojson").read_bytes()
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no folder of slides is given"),
        (["nowhere"], "nowhere: is no folder"),
        ([".", "--port"], "--port: has no value"),
        ([".", "--port", "many"], "127.0.0.1:many: cannot be listened at"),
    ],
)
def test_script_ends_in_one_line_where_it_cannot_start(words, says, root, label_environment, tmp_path):
    command = ["bash", str(root / "scripts" / "label.sh"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("label: error: ")
    assert says in line
    assert list(tmp_path.iterdir()) == []


def test_server_ends_in_one_line_where_the_list_of_images_is_damaged(root, label_environment, tmp_path):
    (tmp_path / "datastore_v2.json").write_text('{"objects": ')
    command = ["bash", str(root / "scripts" / "label.sh"), ".", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"lightmuseg: error: {tmp_path / 'datastore_v2.json'}: is damaged; move it away" in said
    assert "Traceback" not in said
    assert (tmp_path / "datastore_v2.json").read_text() == '{"objects": '


def test_monai_labels_own_app_serves_the_exported_bundle(
    serve, run, exported, root, label_environment, studies, tmp_path
):
    (sample,) = label_environment.glob("monailabel/sample-apps/monaibundle")
    app = tmp_path / "monaibundle"
    shutil.copytree(sample, app)
    name = exported.name
    shutil.copytree(exported, app / "model" / name)
    folder = tmp_path / "studies"
    folder.mkdir()
    shutil.copy(studies / "tile 0.png", folder / "tile.png")
    server = serve(folder, "--app", app, "--conf", "models", name, "--conf", "zoo_source", "local")
    assert list(server.first_answer.json()["models"]) == [name]
    # of a PNG, ITK writes a map [1, H, W] as one of its columns
    params = {"params": json.dumps({"result_extension": ".tif"})}
    answer = server("POST", f"/infer/{name}?image=tile&output=image", data=params)
    assert answer.status_code == 200, answer.text
    path = tmp_path / "answer.bin"
    path.write_bytes(answer.content)
    classes = tifffile.imread(path)
    command = ["segment", folder / "tile.png", "--output", tmp_path / "ours", "--mpp", 0.5, "--output-mpp", 0.5]
    command += ["--no-tissue-mask", "--model", root / "bundle" / "models" / "model.pt"]
    status, _, stderr = run("python", "-m", "lightmuseg.cli", *command)
    assert status == 0, stderr[-2000:]
    expected = tifffile.imread(tmp_path / "ours" / "tile" / "classes.tif")
    # columns, rows
    classes = np.squeeze(classes).T == 1
    assert classes.shape == expected.shape == (512, 512)
    # and our app takes what it needs from the exported bundle
    own = serve(folder, "--conf", "bundle", app / "model" / name, "--conf", "patches", "1")
    assert own.model["weights_sha256"] == sha256_of(root / "bundle" / "models" / "model.pt")
    assert own.infer("tile", "json").json()["features"]
    assert 2 * (classes & (expected == 1)).sum() / (classes.sum() + (expected == 1).sum()) > 0.95
