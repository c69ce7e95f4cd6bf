"""Links of the page on deployment lead somewhere, and it names every file."""

import re


def test_links_lead_to_files_and_every_file_has_one(root):
    folder = root / "deploy"
    names = re.findall(r"]\(([^)]+)\)", (folder / "README.md").read_text())
    assert all((folder / name).is_file() for name in names)
    made = {path.name for path in folder.iterdir()} - {"README.md", "Dockerfile.dockerignore"}
    assert made <= set(names)
