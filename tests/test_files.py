"""Files are complete or as they were: killed, on a full disk, over what is not ours, by several at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bdtr.results import files
from bdtr.results.files import OutputError, check_output, check_page, write_whole


@pytest.mark.parametrize("kind", ["save", "report", "notebook"])
def test_killed_or_on_a_full_disk_there_is_the_old_file_or_the_new_one(kind, tmp_path):
    script = Path(__file__).with_name("interrupted.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), kind, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 kills" in done.stdout and done.stdout.count("Nothing was changed") == 2


def test_files_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"old")
    two.mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole({one: b"new", two: b"new"})
    assert one.read_bytes() == b"old" and sorted(p.name for p in tmp_path.iterdir()) == [
        "one",
        "two",
    ]
    three = tmp_path / "three"
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole({three: b"new", two: b"new"})
    assert not three.exists()
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole({one: b"new", two: b"new"})
    assert one.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2


def test_links_are_followed_and_permissions_kept(tmp_path):
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_bytes(b"old")
    there.chmod(0o640)
    link.symlink_to(there)
    write_whole({link: b"new"})
    assert link.is_symlink() and there.read_bytes() == b"new"
    assert there.stat().st_mode & 0o777 == 0o640
    with pytest.raises(OutputError, match="two files"):
        write_whole({link: b"1", there: b"2"})
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "later")
    write_whole({dangling: b"x"})
    assert (tmp_path / "later").read_bytes() == b"x"


def test_inputs_are_known_under_every_name(tmp_path):
    data = tmp_path / "d.csv"
    data.write_text("x")
    (tmp_path / "soft.html").symlink_to(data)
    os.link(data, tmp_path / "hard.html")
    for name in ("d.csv", "soft.html", "hard.html", "./d.csv"):
        with pytest.raises(OutputError, match="would replace"):
            check_output(tmp_path / name, "-o", (), [data])
    assert check_output(tmp_path / "new.HTML", "-o", (".html",), [data]) == tmp_path / "new.HTML"
    for wrong in (None, 3, "a\0b"):
        with pytest.raises(OutputError, match="is no path"):
            check_output(wrong, "-o")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no ordinary file"):
        check_output(tmp_path / "pipe", "-o")


def test_links_to_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "d.csv").write_text("x")
    (tmp_path / "p.html").symlink_to(tmp_path / "d.csv")
    (tmp_path / "q.html").symlink_to(tmp_path / "later.txt")
    (tmp_path / "r.html").symlink_to(tmp_path / "store")
    for name in ("p.html", "q.html"):
        with pytest.raises(OutputError, match="it leads to"):
            check_output(tmp_path / name, "-o", (".html",))
    check_output(tmp_path / "r.html", "-o", (".html",))
    (tmp_path / "one.html").symlink_to(tmp_path / "two.html")
    with pytest.raises(OutputError, match="same file as"):
        files.check_apart([tmp_path / "one.html", tmp_path / "two.html"], "-o")


def test_long_names_have_room_for_what_is_written_aside(tmp_path):
    path = tmp_path / ("x" * 255)
    write_whole({path: b"new"})
    assert path.read_bytes() == b"new"
    assert len(files._aside(path).name) < 40


def test_an_interruption_after_the_last_move_undoes_nothing(tmp_path, monkeypatch):
    one, two = tmp_path / "one.json", tmp_path / "two.html"
    one.write_bytes(b"old")
    two.write_bytes(b"old")
    moves, replace = [], os.replace

    def interrupted(source, target):
        replace(source, target)
        moves.append(target)
        if len(moves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole({one: b"new", two: b"new"})
    assert (one.read_bytes(), two.read_bytes()) == (b"new", b"new")
    assert len(list(tmp_path.iterdir())) == 2


def test_only_pages_of_bdtr_are_replaced(tmp_path):
    page = tmp_path / "index.html"
    assert check_page(page, "-o") == page
    page.write_text("")
    assert check_page(page, "-o") == page
    page.write_text('<html><head>\n<meta name="generator" content="bdtr">\n')
    assert check_page(page, "-o") == page
    page.write_text("<html>my own page</html>")
    with pytest.raises(OutputError, match="which bdtr did not write"):
        check_page(page, "-o")
