"""Files that are complete or absent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files aside and move them into place once all of them are there."""
    asides = {path: path.with_name(path.name + ".part") for path in contents}
    for path, content in contents.items():
        asides[path].write_bytes(content)
    for path, aside in asides.items():
        os.replace(aside, path)
