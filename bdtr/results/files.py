"""Files that are written: where they may go, and complete or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from bdtr.results.errors import BdtrError

__all__ = ["GENERATOR", "OutputError", "check_apart", "check_output", "check_page", "write_whole"]

GENERATOR = '<meta name="generator" content="bdtr">'  # in the head of each page of bdtr


class OutputError(BdtrError, OSError, ValueError):
    """A file that may not or cannot be written."""


def check_output(
    path: str | os.PathLike,
    argument: str,
    suffixes: Iterable[str] = (),
    inputs: Iterable[str | os.PathLike] = (),
) -> Path:
    """A path that can be written, found out before any work is done.

    Parameters
    ----------
    path
        Where a file is to go.
    argument
        What the user calls it, for messages.
    suffixes
        Allowed endings; none: any.
    inputs
        Files that are read and must stay as they are, whatever they are called.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    OutputError
        If it is a folder or an input, ends otherwise, or its folder is absent or closed.
    """
    try:
        path = Path(path)
        str(path).encode()
        target = Path(os.path.realpath(path))
        return _checked(path, target, f"{argument} {path}", tuple(suffixes), inputs)
    except OutputError:
        raise
    except UnicodeEncodeError:
        raise OutputError(f"{argument} {str(path)!r}: is no name in valid text.") from None
    except OSError as error:
        raise OutputError(f"{argument} {path}: cannot be written, {error.strerror}.") from None
    except (TypeError, ValueError) as error:
        raise OutputError(f"{argument} {path!r}: is no path of a file. {error}") from None


def _checked(
    path: Path,
    target: Path,
    where: str,
    allowed: tuple[str, ...],
    inputs: Iterable[str | os.PathLike],
) -> Path:
    if target.is_dir():
        raise OutputError(f"{where}: is a folder. Name a file in it.")
    # A link may point to a file without an ending, but not to one of another kind.
    if allowed and (
        path.suffix.lower() not in allowed or target.suffix.lower() not in (*allowed, "")
    ):
        at = f", and it leads to {target}" if path.suffix.lower() in allowed else ""
        raise OutputError(f"{where}: must end in {' or '.join(allowed)}{at}.")
    if not target.parent.is_dir():
        raise OutputError(f"{where}: the folder {target.parent} does not exist.")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{where}: nothing can be written in the folder {target.parent}.")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise OutputError(f"{where}: is no ordinary file.")
    for one in inputs:
        if target == Path(os.path.realpath(one)) or (
            target.exists() and os.path.exists(one) and os.path.samefile(target, one)
        ):
            raise OutputError(f"{where}: would replace {one}, which is read. Choose another name.")
    return path


def check_apart(paths: Iterable[Path], argument: str) -> None:
    """Raise where links make one file of two."""
    taken: dict[str, Path] = {}
    for path in paths:
        other = taken.setdefault(os.path.realpath(path), path)
        if other is not path:
            raise OutputError(f"{argument} {path}: is the same file as {other}.")


def check_page(
    path: str | os.PathLike, argument: str, inputs: Iterable[str | os.PathLike] = ()
) -> Path:
    """As :func:`check_output` for a page: what is there may only be one that bdtr wrote, or empty."""
    page = check_output(path, argument, (".html", ".htm"), inputs)
    if page.exists() and not _is_page(page):
        raise OutputError(
            f"{argument} {path}: there is a page of that name which bdtr did not write. Choose another name, "
            "or take the page away."
        )
    return page


def _is_page(path: Path) -> bool:
    """Whether a file is empty, or a page that bdtr wrote."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    return not start or GENERATOR.encode() in start


def write_whole(contents: Mapping[Path, str | bytes]) -> None:
    """Write files, all of them or none.

    Each is written aside, under a name of its own, and moved into place once all are there; where a move
    fails, those before it are undone. Symbolic links are followed. Text is written as UTF-8, halves of
    characters as escapes.

    Raises
    ------
    OutputError
        If they cannot be written, for example because the disk is full. What was there is still there.
    """
    asides: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            target = Path(os.path.realpath(path))
            if target in asides:
                raise OutputError(f"{path}: two files would be written to one name.")
            asides[target] = _aside(target)
            _write(asides[target], content)
            if target.exists():
                shutil.copymode(target, asides[target])
        _move(asides)
    except OutputError:
        raise
    except OSError as error:
        names = ", ".join(map(str, contents))
        raise OutputError(
            f"{names}: cannot be written, {error.strerror or error}. Nothing was changed."
        ) from None
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)


def _aside(target: Path) -> Path:
    """A name beside the file that no other process uses."""
    return target.with_name(f".bdtr-{secrets.token_hex(8)}.part")


def _write(path: Path, content: str | bytes) -> None:
    raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with open(path, "xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _move(asides: Mapping[Path, Path]) -> None:
    """Move files into place; the last move decides, until then all can be undone."""
    kept: dict[Path, Path | None] = {}
    try:
        for i, (target, aside) in enumerate(asides.items()):
            if i < len(asides) - 1:
                kept[target] = _second_name(target) if target.exists() else None
            os.replace(aside, target)
    except BaseException:
        if not list(asides.values())[-1].exists():
            raise  # the last one is in place: an interruption after that
        for target, old in kept.items():
            if old is not None:
                os.replace(old, target)
            elif not asides[target].exists():
                target.unlink(missing_ok=True)
        raise
    finally:
        for old in kept.values():
            if old is not None:
                old.unlink(missing_ok=True)


def _second_name(target: Path) -> Path:
    other = _aside(target)
    try:
        os.link(target, other)
    except OSError:  # a file system without links
        shutil.copy2(target, other)
    return other
