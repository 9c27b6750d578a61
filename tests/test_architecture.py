"""Arrows between the rooms point one way; rooms that work on draws know no sampler."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "bdtr"
# A room may import rooms of lower layers when it is loaded. Names used inside functions (lazy
# imports) may point down as well, never up.
LAYERS = [
    {"errors", "labels"},
    {"arguments", "otherformulas", "threads", "allocation", "treesearch", "files"},
    {"notebooks"},
    {"alignment", "condition", "formula", "priors", "families", "chains"},
    {"rules", "estimates", "shown", "columns"},
    {"trial", "protocol"},
    {"starter"},
    {"contents"},
    {"coding", "settings", "progress", "flow", "populations", "history", "margins"},
    {"clusters", "datafiles", "outside", "frames"},
    {"data", "datasets"},
    {"grouping"},
    {"multilevel.linking"},
    {"multilevel.layout", "multilevel.randomness", "multilevel.weights"},
    {"sitelevel", "multilevel.crossproducts"},
    {"groupdesign", "rank"},
    {"design"},
    {"multilevel.parameters"},
    {"multilevel.system"},
    {"multilevel.elimination"},
    {"multilevel.marginal"},
    {"multilevel.gradient", "multilevel.exact", "multilevel.slices", "prediction", "stagemodel"},
    {"multilevel.op", "multilevel.perturbed", "carrying"},
    {"multilevel.peaks"},
    {"multilevel.proposals"},
    {"multilevel.learning", "multilevel.independence"},
    {"multilevel.direct"},
    {"outcome"},
    {"posterior"},
    {"sampling"},
    {"propagation", "groups", "induction", "decisions", "diagnostics", "bounds"},
    {"refits", "propensity", "support"},
    {"regimes", "comparison"},
    {
        "recommendation",
        "summary",
        "storage",
        "values",
        "fitted",
        "fitting",
        "passes",
        "gate",
        "doubts",
        "factors",
        "informative",
        "residuals",
        "balance",
        "assignment",
        "plots",
    },
    {"leaveout"},
    {"learning"},
    {"crossfitting", "maximum", "effects", "sites", "risk", "limits"},
    {"planning", "information", "prior_sensitivity"},
    {"equity", "trees", "predictive", "tailoring"},
    {"sensitivity", "opinion"},
    {"reports"},
    {"cli"},
]
ON_DRAWS = ["induction", "regimes", "values", "decisions", "comparison", "populations"]


def _modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name not in ("__init__", "multilevel", "datasets.build_star"):
            found[name] = path
    return found


def _layer(module: str) -> int:
    for i, layer in enumerate(LAYERS):
        if any(module == room or module.startswith(room + ".") for room in layer):
            return i
    raise AssertionError(f"bdtr.{module} has no layer: say in this test where it belongs")


def _imports(path: Path) -> list[str]:
    """bdtr modules that a file imports, type-checking blocks apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bdtr"):
            if node.module == "bdtr":
                found += [alias.name for alias in node.names]
            else:
                found.append(str(node.module).removeprefix("bdtr."))
    return found


@pytest.mark.parametrize("module", sorted(_modules()))
def test_arrows_point_one_way(module):
    own = _layer(module)
    for target in _imports(_modules()[module]):
        assert _layer(target) <= own, f"bdtr.{module} imports bdtr.{target}, which is above it"


@pytest.mark.parametrize("module", ON_DRAWS)
def test_rooms_on_draws_import_no_sampler(module):
    samplers = ("pymc", "pytensor", "nutpie")
    code = f"import sys, bdtr.{module}; print([m for m in {samplers} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", ["import bdtr", "import bdtr; bdtr.fit, bdtr.Trial, bdtr.report"]
)
def test_importing_bdtr_does_not_import_pymc(command):
    code = f"import sys; {command}; print('pymc' in sys.modules, 'pytensor' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False False"


def test_help_does_not_import_pymc():
    code = (
        "import sys; sys.argv = ['bdtr', '--help']\n"
        "from bdtr.cli import app\n"
        "try: app()\n"
        "except SystemExit: print('pymc' in sys.modules, 'numba' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith("False False")


def test_public_names_are_few_and_all_there():
    import bdtr

    rooms = {name for name in bdtr.__all__ if inspect.ismodule(getattr(bdtr, name))}
    assert len(set(bdtr.__all__) - rooms) <= 20  # the rest in public modules
    assert len(rooms) <= 18
    for name in bdtr.__all__:
        assert getattr(bdtr, name) is not None
    with pytest.raises(AttributeError):
        bdtr.nothing  # noqa: B018  the attribute access is the test
