"""Text of files that a user names: what is something else is refused at once, in words."""

import gzip
import os

import pytest

from gipo.common.errors import UserError
from gipo.common.reading import read_text, stand_in, stand_in_at


def test_text_with_and_without_a_byte_order_mark(tmp_path):
    for name, data in (("a", "é\n".encode()), ("b", b"\xef\xbb\xbf" + "é\n".encode())):
        (tmp_path / name).write_bytes(data)
        assert read_text(tmp_path / name) == "é\n"


def test_what_is_no_text_file(tmp_path):
    (tmp_path / "latin").write_bytes("Größe".encode("latin-1"))
    (tmp_path / "long").write_bytes(b"x" * 11)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("latin", "'.*latin' is not UTF-8 text: byte 2 is 0xf6$"),
        ("long", "'.*long' has 11 bytes, more than the 10 allowed$"),
        ("pipe", "'.*pipe' is not a regular file$"),
        ("", "is not a regular file$"),
        ("none", "cannot read '.*none': No such file or directory$"),
        ("loop", "cannot read '.*loop': Too many levels of symbolic links$"),
        ("x" * 300, "cannot read '.*': File name too long$"),
        ("a\0b", r"cannot read '.*a\\x00b': (open: )?embedded null (byte|character)( in path)?$"),
    ):
        with pytest.raises(UserError, match=message):
            read_text(tmp_path / name, limit=10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    with pytest.raises(UserError, match=r"cannot read '.*a': Permission denied$"):
        read_text(tmp_path / "a")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "pointer of Git LFS"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b"", "empty"),
        (b"PK\x03\x04", ""),
        (b"version", ""),
    ],
)
def test_what_stands_in_the_place_of_a_file(tmp_path, content, words):
    (tmp_path / "a").write_bytes(content)
    assert stand_in(content) == stand_in_at(tmp_path / "a")
    assert words in stand_in(content)
    assert bool(words) == bool(stand_in(content))
    assert stand_in_at(tmp_path) == stand_in_at(tmp_path / "none") == ""


def test_every_reader_of_data_says_so(tmp_path):
    """Of a clone without Git LFS, every file is whole and none is what its name says."""
    from deploy.runtime.check import check_bytes
    from gipo.common.checkpoint_head import read_head
    from robots.log import verify

    for name in ("a.ckpt", "a.mcap"):
        (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(
        UserError, match=r"not a checkpoint of plain tensors: it is a pointer of Git LFS, and `git lfs pull`"
    ):
        read_head(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"the file is no artifact: it is a pointer of Git LFS"):
        check_bytes(POINTER)
    found = verify(tmp_path / "a.mcap")
    assert (found.status, found.reason[:30]) == ("foreign", "it is a pointer of Git LFS, an")
