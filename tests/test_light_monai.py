"""MONAI without what the slide engine never needs of it."""

import json

LOADED = "print(json.dumps(sorted({'monai', 'torch', *UNUSED} & sys.modules.keys())))"


def printed(run, *lines):
    """What the lines print as JSON, in a process that has loaded nothing."""
    code = "\n".join(["import json, sys", "from lightmuseg.light_monai import UNUSED, load_light_monai", *lines])
    status, stdout, stderr = run("python", "-c", code, truly=True)
    assert status == 0, stderr
    return [json.loads(line) for line in stdout.splitlines()]


def test_packages_for_training_are_loaded_when_they_are_asked_for(run):
    before, after = printed(run, "load_light_monai()", LOADED, "import ignite.engine, nibabel, scipy.signal", LOADED)
    assert before == ["monai", "torch"]
    assert {"ignite", "nibabel", "scipy.signal"} <= set(after)


def test_loaded_monai_stays_whole(run):
    asked = "print(json.dumps([optional_import(name)[1] for name in ('ignite', 'nibabel')]))"
    assert printed(run, "from monai.utils import optional_import", "load_light_monai()", asked) == [[True, True]]


def test_no_variant_needs_more(run):
    variants = ["inference_wsi", "efficientnet_b0", "multiclass", "no_msffm", "vit"]
    made = printed(
        run, "load_light_monai()", "from monai.bundle import ConfigParser", f"for name in {variants}:",
        "    config = ConfigParser()",
        "    config.read_config([f'bundle/configs/{one}.json' for one in ('inference_wsi', name)])",
        "    print(json.dumps(type(config.get_parsed_content('network')).__name__))",
    )  # fmt: skip
    assert made == ["LightMuSeg"] * len(variants)
