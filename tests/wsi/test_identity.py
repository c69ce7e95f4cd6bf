import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightmuseg.slides.finished import is_changed
from lightmuseg.wsi import identity
from lightmuseg.wsi.identity import LEAST_BYTES, MOST_BYTES, PLACES, content_of, files_of, identity_of, is_same


def made(path, size, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([seed]) * size)
    return path


@pytest.mark.parametrize("place", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 5000, 100_000, 3_000_000])
def test_head_and_tail_tell_slides_of_one_size_apart(tmp_path, size, place):
    slide = made(tmp_path / "a.svs", size)
    before, times = identity_of(slide), slide.stat()
    with open(slide, "r+b") as file:
        file.seek(int(place * (size - 1)))
        file.write(b"x")
    os.utime(slide, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not is_same(slide, before)


def test_small_slides_are_looked_at_whole(tmp_path):
    slide = made(tmp_path / "a.svs", MOST_BYTES)
    before = content_of(identity_of(slide))
    for place in range(0, MOST_BYTES, 50_021):
        with open(slide, "r+b") as file:
            file.seek(place)
            file.write(b"x")
        assert content_of(identity_of(slide)) != before
        before = content_of(identity_of(slide))


def test_of_a_large_slide_little_is_read(tmp_path, monkeypatch):
    with open(tmp_path / "a.svs", "wb") as file:
        file.truncate(5_000_000_000)
    read = []

    def counted(path, mode):
        file = closing(Path(path).open(mode))  # noqa: SIM115 - closed by who asked for it
        original = file.thing
        file.thing = SimpleNamespace(
            seek=original.seek, read=lambda count: read.append(count) or original.read(count), close=original.close
        )
        return file

    monkeypatch.setattr(identity, "open", counted, raising=False)
    assert identity_of(tmp_path / "a.svs")["bytes"] == 5_000_000_000
    assert sum(read) <= MOST_BYTES
    # of very many files a little each
    for number in range(300):
        made(tmp_path / "series" / f"{number}.dcm", 20_000)
    read.clear()
    assert identity_of(tmp_path / "series")["files"] == 300
    assert sum(read) <= 300 * PLACES * LEAST_BYTES


def test_times_alone_make_no_other_slide(tmp_path):
    slide = made(tmp_path / "a.svs", 100_000)
    before = identity_of(slide)
    shutil.copyfile(slide, tmp_path / "copy")
    (tmp_path / "copy").replace(slide)
    os.utime(slide, (0, 0))
    assert identity_of(slide) != before
    assert is_same(slide, before)


def test_companions_belong_to_the_slide(tmp_path):
    mirax, data = made(tmp_path / "m.mrxs", 100), made(tmp_path / "m" / "Data0001.dat", 10_000)
    vms, part = tmp_path / "v.vms", made(tmp_path / "v(1,0).jpg", 10_000)
    vms.write_text("[Virtual Microscope Specimen]\nImageFile=v(1,0).jpg\nMacroImage=gone.jpg\nNoLayers=1\n")
    made(tmp_path / "other.jpg", 10)
    assert files_of(mirax) == [mirax, data]
    assert files_of(vms) == [vms, part]
    made(tmp_path / "series" / "1.dcm", 10_000)
    made(tmp_path / "series" / "2.dcm", 10_000)
    for slide, companion in ((mirax, data), (vms, part)):
        before = identity_of(slide)
        assert is_same(slide, before)
        made(companion, 10_000, seed=1)
        assert not is_same(slide, before)
    before = content_of(identity_of(tmp_path / "series"))
    made(tmp_path / "series" / "2.dcm", 10_000, seed=1)
    assert content_of(identity_of(tmp_path / "series")) != before


def test_what_systems_put_into_a_slides_folder_is_no_part_of_it(tmp_path):
    mirax = made(tmp_path / "m.mrxs", 100)
    made(tmp_path / "m" / "Data0001.dat", 10_000)
    before = identity_of(mirax)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._Data0001.dat", ".cache/thumbnail"):
        made(tmp_path / "m" / name, 10)
    assert is_same(mirax, before)
    assert content_of(identity_of(mirax)) == content_of(before)


def test_nobody_knows_whether_a_series_changed_that_cannot_be_read_now(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "series").mkdir()
    slide = tmp_path / "series" / "1.dcm"
    shutil.copy(data / "slides" / "highdicom_sm_image.dcm", slide)
    for named in (slide, slide.parent):
        record = {"slide": str(named), "slide_identity": identity_of(named)}
        (tmp_path / "out" / "run.json").write_text(json.dumps(record))
        content = slide.read_bytes()
        slide.write_bytes(content[:500])
        assert not is_changed(tmp_path / "out", named)
        slide.write_bytes(content[:-1] + b"x")
        assert is_changed(tmp_path / "out", named)
        slide.write_bytes(content)
