"""Compiled kernels that are kept on disk."""

from __future__ import annotations

import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from bdtr.engine.compiled import kernels

ENGINE = Path(kernels.__file__).parents[1]


def sources_of(engine: Path) -> str:
    """The hash that kernels of a copy of the engine would be kept under."""
    spec = spec_from_file_location("copied_kernels", engine / "compiled" / "kernels.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.sources()


@pytest.mark.parametrize("file", ["system.py", "density/elimination.py", "compiled/streams.py"])
def test_kernels_are_compiled_anew_when_any_file_of_the_engine_changes(file, tmp_path):
    """A kernel takes over the code of those it calls, and the layout of its arguments, from other files."""
    copy = tmp_path / "engine"
    shutil.copytree(ENGINE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert sources_of(copy) == kernels.sources()
    (copy / file).write_text(
        (copy / file).read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8"
    )
    assert sources_of(copy) != kernels.sources()
