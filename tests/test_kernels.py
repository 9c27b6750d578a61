"""Compiled kernels that are kept on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


BITS = """
from hashlib import sha256
import numpy as np
from test_batched import places
from test_marginal import prepared
from bdtr.engine.coefficients.exact import exact_draws
from bdtr.engine.density.batched import densities, make_batch_room
from bdtr.engine.density.gradient import density_and_gradient
from bdtr.engine.system import Posteriors, Response, make_room

*_, params, products, responses, _ = prepared("classes of two grades", 3, True)
posteriors = Posteriors.given(products, responses, params, 0.0)
targets, phi, out = posteriors.of(np.arange(1)), places(params), np.empty(8)
own, which, p = targets.own, np.zeros(8, dtype=np.int64), params.precision.size
y = Response(targets.zty[0], targets.hty[0], targets.yty[0])
densities(phi, which, *targets, make_batch_room(own, False), out)
found = [out, *exact_draws(products, posteriors.responses, params, phi, which, np.random.SeedSequence(1))]
for one in phi:
    value, gradient = density_and_gradient(
        one, own, targets.priors, y, np.empty((p + 1, p + 1)), make_room(own)
    )
    found += [np.array([value]), gradient]
print(sha256(b"".join(np.ascontiguousarray(f).tobytes() for f in found)).hexdigest())
"""


def test_kernels_from_disk_have_the_bits_of_those_just_compiled(tmp_path):
    """The compiler may fuse products and sums, but the same ones whenever it compiles."""
    paths = os.pathsep.join([str(Path(__file__).parent), str(ENGINE.parents[1])])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", BITS],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    )
    assert first == second
    assert len(first.strip()) == 64
