"""The code location: configuration in, definitions out; loading it opens no connection and reads no secret."""

from __future__ import annotations

from gs_backup_assets.config import load_config
from gs_backup_assets.factory import build_definitions

defs = build_definitions(load_config())
