"""The page on deployment names every file."""

import re


def test_every_file_has_its_link(root):
    folder = root / "deploy"
    names = re.findall(r"]\(([^)]+)\)", (folder / "README.md").read_text())
    assert {path.name for path in folder.iterdir()} - {"README.md", "Dockerfile.dockerignore"} <= set(names)
