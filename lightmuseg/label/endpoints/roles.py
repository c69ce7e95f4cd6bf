"""Who may ask what: MONAI Label's roles, where authentication is on."""

from __future__ import annotations

from fastapi import Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

USER, ANNOTATOR, ADMIN = (
    Depends(RBAC(role))
    for role in (
        settings.MONAI_LABEL_AUTH_ROLE_USER,
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
        settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
    )
)
