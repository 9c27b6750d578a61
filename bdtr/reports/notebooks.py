"""Notebooks run from the command line: parameters set, cells executed, a page that needs no network.

Notebooks are .ipynb files or text that jupytext reads (.py, .md). Parameters are set as papermill does:
values go into a new cell after the one tagged ``parameters``, which holds the defaults.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

from bdtr.results.arguments import a_path
from bdtr.results.errors import BdtrError
from bdtr.results.files import (
    GENERATOR,
    OutputError,
    check_apart,
    check_output,
    check_page,
    write_whole,
)

__all__ = ["NotebookError", "is_notebook", "notebook_files", "read_parameters", "run_notebook"]

_KINDS = (".ipynb", ".py", ".md")
_LIBRARIES = ("papermill", "jupytext", "nbconvert", "ipykernel")
_TAG = "parameters"


class NotebookError(BdtrError, RuntimeError):
    """A notebook that cannot be read, given its parameters, or run to its end."""


def is_notebook(name: str) -> bool:
    """Whether this names a notebook file."""
    return Path(name).suffix in _KINDS


def read_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Values by name of texts ``name=value``; a value is a Python literal, or else text.

    Examples
    --------
    >>> read_parameters(["seed=3", "site=East"])
    {'seed': 3, 'site': 'East'}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise NotebookError(f"-p {text}: write name=value, for example -p seed=3.")
        if name in found:
            raise NotebookError(f"-p {text}: {name} is given twice.")
        try:
            found[name] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found[name] = value
    return found


def run_notebook(
    source: str | os.PathLike,
    page: str | os.PathLike,
    *,
    parameters: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> tuple[Path, Path]:
    """Run a notebook and write it, executed, as ``.html`` and as ``.ipynb`` beside it.

    Parameters
    ----------
    source
        Notebook file: ``.ipynb``, or text with cells that jupytext reads (``.py``, ``.md``). It is not
        changed. Where ``x.ipynb`` is absent and ``x.py`` is there, that is taken.
    page
        HTML file to write. The executed notebook has the same name, or ends in ``-executed.ipynb`` where that
        is the source. Both are written, or none is.
    parameters
        Values by name for the cell tagged ``parameters``.
    progress
        Whether to show progress.

    Returns
    -------
    page, executed : pathlib.Path
        The HTML file and the executed notebook.

    Raises
    ------
    NotebookError
        If a library is missing, the notebook has no such parameter, or a cell fails: the cell and its error.

    Examples
    --------
    >>> run_notebook("notebooks/star.py", "star.html", parameters={"seed": 3})  # doctest: +SKIP
    """
    absent = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if absent:
        raise NotebookError(
            f"Running a notebook needs {', '.join(absent)}, of the extra 'notebook': python -m pip install "
            "'.[notebook]' in the clone of bdtr."
        )
    source = _found(a_path("source", source))
    page, executed = notebook_files(source, page)
    try:
        json.dumps(dict(parameters or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotebookError(
            f"parameters: must be numbers, texts, True or False, and lists of them. {error}"
        ) from None
    done = _executed(source, dict(parameters or {}), progress)
    done.metadata["bdtr"] = _digest(done.cells)
    import nbformat

    write_whole({executed: nbformat.writes(done), page: _page(done, source.stem)})
    return page, executed


def notebook_files(
    source: Path, page: str | os.PathLike, argument: str = "-o"
) -> tuple[Path, Path]:
    """The page, and where the executed notebook goes: beside it, under another name where that is the source.

    Raises
    ------
    OutputError
        If one of them cannot be written, or is something that was not made by running a notebook.
    """
    page = check_page(page, argument, [source])
    executed = page.with_suffix(".ipynb")
    if executed.exists() and os.path.samefile(executed, source):
        executed = page.with_name(f"{page.stem}-executed.ipynb")
    check_output(executed, argument, (".ipynb",), [source])
    check_apart([page, executed], argument)
    if executed.exists() and not _was_executed(executed):
        raise OutputError(
            f"{argument} {page}: the executed notebook would replace {executed}, which is another one. "
            "Give the page another name."
        )
    return page, executed


def _was_executed(path: Path) -> bool:
    """Whether a notebook is empty, or what bdtr made and nobody has edited."""
    try:
        held = json.loads(path.read_bytes() or b"{}")
        return not held or held["metadata"]["bdtr"] == _digest(held["cells"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _digest(cells) -> str:
    sources = ["".join(cell["source"]) for cell in cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def _found(source: Path) -> Path:
    if source.suffix not in _KINDS:
        raise NotebookError(f"{source}: a notebook ends in {', '.join(_KINDS)}.")
    if source.is_file():
        return source
    texts = [source.with_suffix(kind) for kind in _KINDS if source.with_suffix(kind).is_file()]
    if source.suffix != ".ipynb" or not texts:
        raise NotebookError(f"{source}: there is no such file.")
    return texts[0]


def _executed(source: Path, parameters: dict[str, Any], progress: bool):
    import papermill

    notebook = _read(source)
    _check_parameters(source, notebook, parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own libraries, about themselves
        try:
            return papermill.execute_notebook(
                notebook,
                None,
                parameters=parameters,
                kernel_name="python3",
                language="python",
                progress_bar=progress,
                cwd=str(source.parent.resolve()),
                log_output=False,
                kernel_manager_class=_kernel_manager(),
            )
        except papermill.exceptions.PapermillExecutionError as error:
            lines = [line for line in error.source.strip().splitlines() if line.strip()]
            raise NotebookError(
                f"{source}: cell {error.exec_count} failed, nothing was written.\n"
                + "\n".join(f"    {line}" for line in lines)
                + f"\n{error.ename}: {_plain(error.evalue)}"
            ) from None
        except Exception as error:  # a kernel that dies, cells that are none
            raise NotebookError(
                f"{source}: could not be run, nothing was written. {type(error).__name__}: "
                f"{_plain(str(error))}"
            ) from None


def _read(source: Path):
    """The notebook in a file, in the format of today."""
    import jupytext
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without ids, as before 2020
            if source.suffix == ".ipynb":
                held: Any = nbformat.from_dict(nbformat.read(source, as_version=4))
            else:
                held = nbformat.convert(jupytext.read(source), 4)
            nbformat.validate(held, relax_add_props=True)
        for cell in held.cells:
            if not isinstance(cell.metadata.get("tags"), list):
                cell.metadata["tags"] = []
    except Exception as error:  # whatever a parser makes of a broken file
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, (AttributeError, KeyError, TypeError)):
            reason = "Its JSON is that of something else."
        raise NotebookError(f"{source}: cannot be read as a notebook. {reason}") from None
    return held


def _kernel_manager() -> type:
    """A kernel that talks through files of this user, not through ports, where the system has such files."""
    from jupyter_client.manager import AsyncKernelManager

    class Local(AsyncKernelManager):
        transport = "ipc" if os.name == "posix" else "tcp"

    return Local


def _check_parameters(source: Path, notebook, parameters: Mapping[str, Any]) -> None:
    if not parameters:
        return
    tagged = [c for c in notebook.cells if _TAG in c.metadata.tags]
    if not tagged:
        raise NotebookError(
            f"{source}: has no cell tagged {_TAG!r}, so it takes none. Tag the cell with the defaults."
        )
    try:
        tree = ast.parse(tagged[0].source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise NotebookError(
            f"{source}: the cell tagged {_TAG!r} is no Python that can be read. {error}"
        ) from None
    known = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise NotebookError(
            f"{source}: no parameter {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}."
        )


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


_STYLE = """
:root { color-scheme: light; }
body { font: 1rem/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 60rem; padding: 1rem; overflow-wrap: break-word; }
pre { overflow-x: auto; font-size: .85rem; line-height: 1.4; }
.input_area { background: #f6f6f4; border-left: 3px solid #0072b2; padding: .1rem .7rem; }
.prompt, .anchor-link { display: none; }
.output_subarea { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
img, svg { max-width: 100%; height: auto; }
"""


def _page(notebook, title: str) -> str:
    """The notebook as one HTML file: nbconvert's cells in a frame that links to nothing."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body, _ = exporter.from_notebook_node(notebook)
    from pygments.formatters import HtmlFormatter

    found = next((m[1] for c in notebook.cells if (m := re.match(r"# (.+)", c.source))), title)
    heading = unescape(re.sub(r"\\([^\w\s])", r"\1", found))  # as it is read, not as it is written
    colours = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{GENERATOR}\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n<style>{_STYLE}{colours}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
