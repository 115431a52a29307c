"""Files: whole or absent, summed, one process at a time."""

from __future__ import annotations

import hashlib
import json
import os
import threading

import pytest

from actkit.files import (
    adding_to,
    locked_file,
    md5,
    remove_temporary,
    sha256,
    sha256_of,
    write_json,
    write_text,
    writing,
)


def names(folder) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_written_takes_the_place_of_the_old_file(tmp_path, durable):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with writing(file, durable=durable) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert (file.read_text(), names(tmp_path)) == ("new", {"a.txt"})


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(KeyError), writing(file) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert (file.read_text(), names(tmp_path)) == ("old", {"a.txt"})


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "made"
    with pytest.raises(KeyError), writing(folder) as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
        raise KeyError
    assert names(tmp_path) == set()
    with writing(folder) as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
    assert (names(tmp_path), names(folder)) == ({"made"}, {"a"})


def test_a_folder_takes_the_place_of_an_empty_one_alone(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    for wanted in ("a", "b"):
        try:
            with writing(folder) as temporary:
                temporary.mkdir()
                (temporary / wanted).touch()
        except OSError:
            assert wanted == "b"
    assert (names(tmp_path), names(folder)) == ({"made"}, {"a"})


def test_what_killed_writers_left_is_removed_by_its_names_pattern(tmp_path):
    for name in (".tmp-7-step-3", ".tmp-7-other", "step-3"):
        (tmp_path / name).mkdir()
    remove_temporary(tmp_path, "step-*")
    assert names(tmp_path) == {".tmp-7-other", "step-3"}


def test_what_is_added_to_a_folder_overwrites_nothing(tmp_path):
    (tmp_path / "a").write_text("mine")
    with adding_to(tmp_path) as temporary:
        (temporary / "a").write_text("other")
        (temporary / "b").write_text("new")
    assert (names(tmp_path), (tmp_path / "a").read_text()) == ({"a", "b"}, "mine")


def test_text_and_json_are_utf_8(tmp_path):
    write_text(tmp_path / "a", "ε")
    write_json(tmp_path / "b", {"ε": [1]})
    assert (tmp_path / "a").read_bytes() == "ε".encode()
    assert json.loads((tmp_path / "b").read_text(encoding="utf-8")) == {"ε": [1]}


def test_sums_are_those_of_hashlib(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert md5(tmp_path / "a") == hashlib.md5(b"abc").hexdigest()


def test_settings_have_one_sum_whatever_the_order_of_their_keys():
    assert sha256_of({"a": 1, "b": 2}, 8) == sha256_of({"b": 2, "a": 1}, 8) != sha256_of({"a": 1, "b": 3}, 8)
    assert len(sha256_of(0, 8)) == 8


def test_who_wants_a_locked_file_waits(tmp_path):
    order, held = [], threading.Event()

    def second() -> None:
        held.wait()
        with locked_file(tmp_path / "a"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked_file(tmp_path / "a"):
        held.set()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert os.path.exists(tmp_path / ".a.lock")
