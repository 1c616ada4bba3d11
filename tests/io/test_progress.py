"""Progress: lines where what is written stays, a bar on a terminal, and nothing of work that is soon done."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from cellseg_d2.io import progress
from cellseg_d2.io.progress import track

LINE = re.compile(r"sorting: (\d+) of \d+ plates in 0\d:\d\d, (?:0\d:\d\d|\?) left(, .+)?$")


@pytest.fixture
def said(capsys):
    """What is written to stderr, which is no terminal here, line by line."""
    lines = []

    def said():
        lines.extend(capsys.readouterr().err.splitlines())
        return lines

    return said


def test_each_item_gets_a_line_with_what_came_of_it_and_the_time_left(said):
    bar = track("abc", "sorting", "plate", each=True)
    for number, item in enumerate(bar):
        assert len(said()) == number, "no line comes before its item is done"
        bar.set_postfix_str(f"{number} in {item}", refresh=False)
    lines = [LINE.match(line) for line in said()]
    assert [line[1] for line in lines] == ["1", "2", "3"]
    assert [line[2] for line in lines] == [", 0 in a", ", 1 in b", ", 2 in c"]


def test_work_that_is_soon_done_says_nothing(said):
    assert list(track("abc", "sorting", "plate")) == ["a", "b", "c"]
    assert list(track("abc", "sorting", "plate", each=True, shown=False)) == ["a", "b", "c"]
    assert said() == []


def test_long_work_says_a_line_a_pause(said):
    seconds = iter(range(0, 10**6, 4))
    bar = track(range(100), "sorting", "plate")
    bar._time = lambda: next(seconds) + bar.start_t  # tqdm's clock
    assert list(bar) == list(range(100))
    assert 5 < len(said()) < 50, "4 s pass from one item to the next, and at least 10 s between lines"
    assert all(map(LINE.match, said()))


def test_counting_and_a_total_that_comes_later(said, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0)
    with track(None, "sorting", "plate") as bar:
        bar.total = 3
        bar.update(2)
    assert [LINE.match(line)[1] for line in said()] == ["2"]


def test_what_is_written_beside_it_repeats_no_line(capsys):
    bar = track("abc", "sorting", "plate", each=True)
    for _ in bar:
        bar.write("skipped")
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 3
    assert printed.out == "skipped\n" * 3


def test_a_terminal_gets_a_bar(repository):
    own, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    code = "from cellseg_d2.io.progress import track; list(track('abc', 'sorting', 'plate', each=True))"
    subprocess.run([sys.executable, "-c", code], stderr=its, check=True, cwd=repository)
    os.close(its)
    drawn = os.read(own, 1 << 16).decode()
    os.close(own)
    assert "\r" in drawn
    assert "3/3" in drawn
    assert " of " not in drawn
