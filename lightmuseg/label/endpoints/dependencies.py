"""What endpoints depend on: MONAI Label's roles, where authentication is on, and the files that are sent."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Form, UploadFile
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
# a part of a form that is no file
FormText = Annotated[str, Form()]
# the last two, for .nii.gz
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){0,2}$")


@contextmanager
def kept(file: UploadFile, folder: Path) -> Iterator[Path]:
    """A file as it was sent, in the server's ``folder``, under a name of ours with its ending; gone afterwards."""
    path = folder / f"{uuid.uuid4().hex}{_ENDING.search(file.filename or '')[0]}"
    try:
        with path.open("wb") as target:
            shutil.copyfileobj(file.file, target)
        yield path
    finally:
        path.unlink(missing_ok=True)
