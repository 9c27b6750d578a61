"""Wings, arrows one way and no circle, type hints included; what works on draws knows no sampler."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import bdtr

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
from make_architecture import FLOORS, PICTURE, arrows, drawn, modules, wing

DOCS = Path(__file__).parent.parent / "docs"
ON_DRAWS = [
    "backward.induction",
    "backward.regimes",
    "values.valuation",
    "values.comparison",
    "values.populations",
    "decisions.optimality",
    "decisions.plans",
    "decisions.trees",
]
WINGS = [
    "trial", "results", "data", "stages", "backward", "values", "decisions", "checks", "plots", "reports",
    "datasets",
]  # fmt: skip


@pytest.mark.parametrize("module", sorted(modules()))
def test_arrows_point_one_way(module):
    floor = FLOORS.index(wing(module))
    for target in arrows()[module]:
        assert FLOORS.index(wing(target)) <= floor, f"bdtr.{module} imports bdtr.{target}, above it"


def test_there_is_no_circle():
    TopologicalSorter(arrows()).prepare()


def test_the_engine_knows_arrays_and_nothing_else():
    own = {t for m, targets in arrows().items() if wing(m) == "engine" for t in targets}
    beyond = {target for target in own if wing(target) != "engine"}
    assert beyond <= {"results.errors", "results.threads"}


def test_the_picture_of_the_architecture_is_fresh():
    assert PICTURE.read_text(encoding="utf-8") == drawn(), "run python docs/make_architecture.py"


def test_the_architecture_page_names_files_that_are_there():
    text = PICTURE.with_name("architecture.md").read_text(encoding="utf-8")
    named = {word for word in text.split("`") if word.endswith(".py") and " " not in word}
    assert len(named) > 30
    for name in named:
        assert (Path(bdtr.__file__).parent / name).exists() or Path(
            bdtr.__file__
        ).parent.parent.joinpath(name).exists(), name


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


def test_everyday_names_are_few_and_all_there():
    rooms = {name for name in dir(bdtr) if inspect.ismodule(getattr(bdtr, name))}
    assert rooms == set(WINGS)
    assert len(set(dir(bdtr)) - rooms) <= 20
    with pytest.raises(AttributeError):
        bdtr.nothing  # noqa: B018  the attribute access is the test


@pytest.mark.parametrize("name", WINGS)
def test_a_wing_lists_what_each_of_its_names_answers(name):
    module = import_module(f"bdtr.{name}")
    listed = [line.split()[0] for line in (module.__doc__ or "").splitlines()[2:] if line.strip()]
    assert sorted(listed) == sorted(dir(module))
    files = {p.stem for p in Path(module.__path__[0]).glob("*.py")}
    for own in dir(module):
        assert getattr(module, own) is not None
        assert own not in files, f"bdtr.{name}.{own} hides the module of that name"
    said = [line.split(None, 1) for line in (module.__doc__ or "").splitlines()[2:] if line.strip()]
    page = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
    assert all(f"| `{own}` | {what} |\n" in page for own, what in said)


def test_everyday_names_are_those_of_the_wings():
    for name in dir(bdtr):
        found = getattr(bdtr, name)
        if not inspect.ismodule(found):
            assert getattr(import_module(f"bdtr.{wing(found.__module__[5:])}"), name) is found


def test_a_file_gives_out_what_it_defines():
    """Each name is imported from the file that holds it, so that one finds it there."""
    for module, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        given = set(getattr(import_module(f"bdtr.{module}"), "__all__", ()))
        assert not given & imported, f"{module}: {sorted(given & imported)}"


def test_no_file_imports_names_that_are_private_elsewhere():
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bdtr"):
                private = [a.name for a in node.names if a.name.startswith("_")]
                assert not private, f"bdtr.{module} imports {private} of {node.module}"
