"""MONAI without what the slide engine never needs of it."""

import json

LOADED = "print(json.dumps(sorted({'monai', 'torch', *UNUSED} & sys.modules.keys())))"


def printed(run, *lines, truly=True):
    """What the lines print as JSON, in a process that has loaded nothing unless it is forked from one."""
    code = "\n".join(["import json, sys", "from lightmuseg.light_monai import UNUSED, load_light_monai", *lines])
    status, stdout, stderr = run("python", "-c", code, truly=truly)
    assert status == 0, stderr
    return [json.loads(line) for line in stdout.splitlines()]


def test_packages_for_training_are_loaded_when_they_are_asked_for_and_by_no_variant(run):
    variants = ["inference_wsi", "efficientnet_b0", "multiclass", "no_msffm", "vit"]
    before, *networks, after = printed(
        run, "load_light_monai()", LOADED, "from monai.bundle import ConfigParser", f"for name in {variants}:",
        "    config = ConfigParser()",
        "    config.read_config([f'bundle/configs/{one}.json' for one in ('inference_wsi', name)])",
        "    print(json.dumps(type(config.get_parsed_content('network')).__name__))",
        "import ignite.engine, nibabel, scipy.signal", LOADED,
    )  # fmt: skip
    assert before == ["monai", "torch"]
    assert networks == ["LightMuSeg"] * len(variants)
    assert {"ignite", "nibabel", "scipy.signal"} <= set(after)


def test_loaded_monai_stays_whole(run):
    asked = "print(json.dumps([optional_import(name)[1] for name in ('ignite', 'nibabel')]))"
    lines = "from monai.utils import optional_import", "load_light_monai()", asked
    assert printed(run, *lines, truly=False) == [[True, True]]
