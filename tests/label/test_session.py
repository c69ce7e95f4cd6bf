"""An annotator's session over HTTP alone, as QuPath does it, on slides and on tiles."""

import hashlib
import io
import json
import threading
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
import tifffile
from affine import Affine
from PIL import Image
from rasterio.features import rasterize

pytestmark = pytest.mark.label

SVS = "CMU-1-Small-Region"
WORKED = (600, 300, 1536, 1024)
TILE_LABEL = {
    "type": "Feature",
    "geometry": {"type": "Polygon", "coordinates": [[[10, 10], [300, 10], [300, 200], [10, 200], [10, 10]]]},
    "properties": {"classification": {"name": "Tumor"}},
}
REGIONS = {SVS: (950, 700, 500, 450), "roi": (700, 400, 1100, 900)}


def drawn(polygons, box):
    """Polygons, each a shell and holes of points, as a mask, bool [height, width], of a box of level-0 pixels."""
    x0, y0, width, height = box
    shapes = [shapely.Polygon(shell, holes) for shell, *holes in polygons]
    assert all(shape.is_valid for shape in shapes)
    return rasterize(shapes, out_shape=(height, width), transform=Affine(1, 0, x0, 0, 1, y0), dtype=np.uint8) == 1


def rasterised(xml, box):
    """The polygons of an ASAP XML as a mask."""
    annotations = ElementTree.fromstring(xml).iter("Annotation")
    rings = [[(float(c.get("X")), float(c.get("Y"))) for c in one.iter("Coordinate")] for one in annotations]
    return drawn([[ring] for ring in rings], box)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def segmented(run, root, path, box, output):
    """Tumor in a box of level-0 pixels by the command ``lightmuseg segment``, bool at level 0."""
    command = ["segment", path, "--output", output, "--region", ",".join(map(str, box)), "--no-tissue-mask"]
    command += ["--runtime", "torch"]
    command += ["--model", root / "bundle" / "models" / "model.pt"]
    status, _, stderr = run("python", "-m", "lightmuseg.cli", *command)
    assert status == 0, stderr[-2000:]
    classes = tifffile.imread(output / path.stem / "classes.tif")
    record = json.loads((output / path.stem / "run.json").read_text())
    step = record["map_mpp"] / record["level0_mpp"]
    columns, rows = (((start + np.arange(size) + 0.5) / step).astype(int) for start, size in zip(box[:2], box[2:]))
    return classes[rows[:, None], columns] == 1


@pytest.mark.parametrize("image", REGIONS)
def test_regions_are_what_the_command_segments(image, server, run, root, tmp_path):
    x, y, width, height = box = REGIONS[image]
    answer = server.infer(image, "asap", level=0, location=[x, y], size=[width, height], tile_size=[1024, 1024])
    expected = segmented(run, root, next(server.studies.glob(f"{image}.*")), box, tmp_path)
    assert dice(rasterised(answer.text, box), expected) > 0.95
    assert expected.any()


def test_kinds_of_answers_agree(server):
    x, y, width, height = box = REGIONS["roi"]
    place = {"location": [x, y], "size": [width, height]}
    from_xml = rasterised(server.infer("roi", "asap", **place).text, box)
    features = server.infer("roi", "json", **place).json()["features"]
    elements = server.infer("roi", "dsa", **place).json()["elements"]
    from_elements = [[[point[:2] for point in ring] for ring in (e["points"], *e.get("holes", []))] for e in elements]
    assert dice(drawn([f["geometry"]["coordinates"] for f in features], box), from_xml) > 0.999
    assert dice(drawn(from_elements, box), from_xml) > 0.999
    assert any(len(f["geometry"]["coordinates"]) > 1 for f in features), "no hole: nothing is proven of holes"
    assert {f["properties"]["classification"]["name"] for f in features} == {"tumor"}
    assert {e["lineColor"] for e in elements} == {"rgb(220,38,38)"}


def test_whole_slide_is_segmented_where_it_is_tissue(server):
    features = server.infer("roi", "json", size=[0, 0], min_poly_area=2000).json()["features"]
    assert len(features) > 3
    # the smallest has at least the area that was asked for
    for feature in features:
        shell = np.array(feature["geometry"]["coordinates"][0])
        area = abs(np.dot(shell[:-1, 0], shell[1:, 1]) - np.dot(shell[1:, 0], shell[:-1, 1])) / 2
        assert area >= 2000


def test_label_image_of_a_tile_is_the_outlines(server):
    answer = server("POST", "/infer/tumor?image=tile 0&output=image")
    image = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert image.shape == (512, 512)
    outlines = rasterised(server.infer("tile 0", "asap").text, (0, 0, 512, 512))
    assert dice(image == 1, outlines) > 0.98
    both = server("POST", "/infer/tumor?image=tile 0&output=all")
    assert b"FeatureCollection" in both.content
    assert answer.content in both.content


def test_session_on_slides(server, opposite, studies):
    x, y, width, height = WORKED
    before = server.model
    scores = server.scored("roi", "entropy", before["weights_sha256"])
    place = {"location": [x, y], "size": [width, height]}
    answered = rasterised(server.infer("roi", "asap", **place).text, WORKED)

    saved = server.save("roi", "roi.geojson", opposite)
    assert saved.status_code == 200, saved.text
    assert server("GET", "/datastore/label?label=roi&tag=final").text == opposite
    patch = server.next("patch", patch_size=[512, 512], image="roi", image_size=[0, 0])
    px, py, pw, ph = patch["bbox"]
    assert (patch["id"], pw, ph) == ("roi", 512, 512)
    shared = max(0, min(px + pw, x + width) - max(px, x)) * max(0, min(py + ph, y + height) - max(py, y))
    assert shared <= pw * ph / 2, "a patch that is annotated already"
    again = server.next("patch", patch_size=[512, 512], image="roi", image_size=[0, 0])
    assert again["bbox"] != patch["bbox"], "two annotators are sent to one patch"

    task = server.train(max_epochs=6, learning_rate=0.003, batch_size=1)
    assert task["status"] == "DONE", task
    assert any("epoch 1 of 6" in line or "training" in line for line in task["details"])
    after = server.model
    assert after["weights_sha256"] != before["weights_sha256"]
    answer = server.infer("roi", "json", **place)
    assert answer.json()["weights_sha256"] == after["weights_sha256"]
    assert dice(rasterised(server.infer("roi", "asap", **place).text, WORKED), answered) < 0.8
    rescored = server.scored("roi", "entropy", after["weights_sha256"])
    assert rescored["score"] != scores["score"]
    versions = server("GET", "/info/").json()["train_stats"]["tumor"]["versions"]
    assert [version["in_use"] for version in versions] == [False, True]
    assert versions[1]["dice"] > versions[1]["dice_before"]
    kept = studies / ".lightmuseg" / "models" / "tumor" / "v0000.pt"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == before["weights_sha256"]


def test_qupaths_requests_are_answered_while_another_annotates(server):
    """As its extension sends them: JSON without saying so, forms, and HEAD to see what is there."""
    x, y, _, _ = WORKED
    place = {"level": 0, "location": [x, y], "size": [512, 512], "tile_size": [1024, 1024], "min_poly_area": 30}
    body = json.dumps({**place, "params": {"foreground": [], "background": [], "max_workers": 1}})
    stop, others = threading.Event(), []

    def annotate():
        while not stop.is_set():
            label = json.dumps({"type": "FeatureCollection", "features": [TILE_LABEL]})
            others.append(server.save("tile 1", "label.geojson", label).status_code)
            others.append(server("GET", "/info/").status_code)
            others.append(server("POST", "/activelearning/random", data=b'{"patch_size": [512, 512]}').status_code)
            others.append(server("POST", "/infer/wsi/tumor?image=tile 1&output=asap", data=b"{}").status_code)

    other = threading.Thread(target=annotate)
    other.start()
    try:
        assert server("GET", "/auth/").status_code == 404, "QuPath takes that for no authentication"
        assert server("HEAD", "/datastore/image?image=roi").status_code == 200
        assert server("HEAD", "/datastore/image?image=elsewhere").status_code == 404
        answer = server("POST", "/infer/wsi/tumor?output=asap&image=roi", data=body.encode())
        assert answer.status_code == 200, answer.text
        same = server.infer("roi", "asap", **place)
        assert answer.text == same.text
        picture = next(server.studies.glob("tile 0.png")).read_bytes()
        answer = server(
            "POST", "/infer/wsi_v2/tumor?output=asap", files={"file": ("patch 1.png", picture)}, data={"wsi": body}
        )
        assert answer.status_code == 400, "the rectangle is not on the picture"
        form = {"wsi": json.dumps({"location": [0, 0], "size": [0, 0], "min_poly_area": 30})}
        answer = server("POST", "/infer/wsi_v2/tumor?output=asap", files={"file": ("patch 1.png", picture)}, data=form)
        assert answer.text.count("<ASAP_Annotations>") == 1, answer.text
        saved = server.save("roi", "roi.xml", same.text)
        assert saved.status_code == 200, saved.text
        sample = server("POST", "/activelearning/first", data=b'{"image": "roi", "patch_size": [256, 256]}').json()
        assert (sample["id"], sample["size"]) == ("roi", [256, 256])
    finally:
        stop.set()
        other.join()
    assert len(others) >= 4
    assert set(others) == {200}
    for image in ("roi", "tile 1"):
        assert server("DELETE", f"/datastore/label?id={image}&tag=final").status_code == 200


def test_weights_that_are_no_better_are_kept_beside_and_older_ones_come_back(server, opposite):
    # labels that the first weights follow already: after steps of such a size weights say nearly the same everywhere
    first = server.train(use_version=0)
    assert first["status"] == "DONE", first
    used = server.model["weights_sha256"]
    x, y, width, height = WORKED
    answer = server.infer("roi", "json", location=[x, y], size=[width, height]).json()
    tumor = drawn([f["geometry"]["coordinates"] for f in answer["features"]], WORKED)
    # where all is called tumor, Dice is this at most in every quarter
    quarters = (half for row in np.array_split(tumor, 2) for half in np.array_split(row, 2, axis=1))
    dice_of_tumor_alone = max(2 * share / (1 + share) for share in (quarter.mean() for quarter in quarters))
    # what no annotation covers is then "other"
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    looked_at = {"type": "Polygon", "coordinates": [corners]}
    region = {"type": "Feature", "geometry": looked_at, "properties": {"classification": {"name": "Region*"}}}
    label = {"type": "FeatureCollection", "features": [*answer["features"], region]}
    assert server.save("roi", "roi.geojson", json.dumps(label)).status_code == 200
    task = server.train(max_epochs=1, learning_rate=0.05, batch_size=1)
    assert server.save("roi", "roi.geojson", opposite).status_code == 200
    assert task["status"] == "DONE", task
    versions = server("GET", "/info/").json()["train_stats"]["tumor"]["versions"]
    assert versions[-1]["dice_before"] > dice_of_tumor_alone, "the labels do not tell a network that learned nothing"
    assert versions[-1]["in_use"] is False
    assert server.model["weights_sha256"] == used == versions[0]["sha256"]
    assert server.train(use_version=1)["status"] == "DONE"
    assert server.model["weights_sha256"] == versions[1]["sha256"]
    assert server.train(use_version=99)["status"] == "ERROR"
    assert server.model["weights_sha256"] == versions[1]["sha256"]


def test_session_on_tiles(server, tumor):
    assert server.train(use_version=0)["status"] == "DONE"
    before = server.model["weights_sha256"]
    server.scored("tile 3", "epistemic", before)
    for index, (x, y) in enumerate([(1000, 500), (1512, 500), (1000, 1012)]):
        content = io.BytesIO()
        Image.fromarray((~tumor[y : y + 512, x : x + 512]).astype(np.uint8)).save(content, "PNG")
        assert server.save(f"tile {index}", "label.png", content.getvalue()).status_code == 200
    for strategy in ("random", "first", "entropy", "epistemic"):
        sample = server.next(strategy)
        assert sample["id"] in ("tile 3", SVS)
        assert sample["path"].endswith((".png", ".svs"))
    assert server.next("first", image="tile 3", patch_size=[256, 256])["size"] == [256, 256]
    task = server.train(max_epochs=6, learning_rate=0.003, batch_size=1)
    assert task["status"] == "DONE", task
    after = server.model["weights_sha256"]
    assert after != before
    assert server("POST", "/infer/tumor?image=tile 3&output=json").json()["weights_sha256"] == after
    assert server.scored("tile 3", "epistemic", after)
    listed = server("GET", "/datastore/?output=all").json()["objects"]
    assert set(listed) == {SVS, "roi", *(f"tile {number}" for number in range(4))}


def test_the_other_model_answers_and_learns_by_its_name(server):
    models = server("GET", "/info/").json()["models"]
    assert list(models) == ["tumor", "tissue"]
    assert models["tissue"]["classes"] == ["tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris"]
    answer = server("POST", "/infer/tissue?image=tile 3&output=json").json()
    assert answer["weights_sha256"] == models["tissue"]["weights_sha256"] != models["tumor"]["weights_sha256"]
    assert list(answer["label_names"]) == models["tissue"]["classes"]
    # class indices of tissue, of which the model of tumor learns what it knows
    image = np.repeat(np.arange(4, dtype=np.uint8), 128)[None].repeat(512, axis=0)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    assert server.save("tile 0", "label.png", content.getvalue()).status_code == 200
    for name in models:
        started = server("POST", f"/train/{name}", json={"max_epochs": 1}).json()
        task = server.ended("/train/", started["id"])
        assert task["status"] == "DONE", task
    versions = {name: stats["versions"] for name, stats in server("GET", "/info/").json()["train_stats"].items()}
    assert len(versions["tissue"]) == 2
    assert versions["tissue"][1]["from_sha256"] == models["tissue"]["weights_sha256"]
    assert versions["tumor"][-1]["from_sha256"] == models["tumor"]["weights_sha256"]


def test_training_is_cancelled(server):
    used = server.model["weights_sha256"]
    started = server("POST", "/train/tumor", json={"max_epochs": 500}).json()
    assert server.running()["id"] == started["id"]
    assert server("DELETE", "/train/").json()["status"] == "STOPPED"
    assert server("GET", "/train/?check_if_running=true").status_code == 404
    assert server.model["weights_sha256"] == used
