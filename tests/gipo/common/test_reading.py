"""Text of files that a user names: what is something else is refused at once, in words."""

import os

import pytest

from gipo.common.errors import UserError
from gipo.common.reading import read_text


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
        ("a\0b", r"cannot read '.*a\\x00b': embedded null byte$"),
    ):
        with pytest.raises(UserError, match=message):
            read_text(tmp_path / name, limit=10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    with pytest.raises(UserError, match=r"cannot read '.*a': Permission denied$"):
        read_text(tmp_path / "a")
