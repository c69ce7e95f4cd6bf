"""Segmented slides of which a test says only what the format that it looks at takes."""

from lightmuseg.outputs.segmented import SegmentedSlide

UNSAID = dict.fromkeys(
    ("path", "counts", "entropies", "record", "options", "tolerance_um", "picture", "step0"),
)


def segmented(class_map, **said):
    return SegmentedSlide(class_map=class_map, **{**UNSAID, **said})
