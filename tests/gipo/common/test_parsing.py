"""Options of numbers and texts: what makes sense passes, everything else is refused in words."""

import argparse

import pytest

from gipo.common.errors import UserError
from gipo.common.parsing import Parser, number, whole, words


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1000", 1000), ("+7", 7)])
def test_whole_numbers(text, value):
    assert whole(1, 1000)(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1001", "1e2", "2.0", "nan", "", "ten", str(10**30)])
def test_what_is_no_whole_number_in_the_range(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no whole number from 1 to 1000$"):
        whole(1, 1000)(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("2.5", 2.5), ("1e1", 10.0)])
def test_numbers(text, value):
    assert number(0, 10)(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.1", "10.1", "", "fast"])
def test_what_is_no_number_in_the_range(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no number from 0 to 10$"):
        number(0, 10)(text)


@pytest.mark.parametrize("text", ["0", "-0.0", "nan"])
def test_zero_where_it_must_be_above(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no number above 0 and at most 10$"):
        number(0, 10, positive=True)(text)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text(text):
    with pytest.raises(argparse.ArgumentTypeError, match="empty"):
        words(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--count", "0"], "argument --count: '0' is no whole number from 1 to 9; see gipo-x run --help"),
        (["run", "--cuont", "1"], "unrecognized arguments: --cuont 1; the nearest: --count; see gipo-x run --help"),
        (["run", "--coun=1"], "unrecognized arguments: --coun=1; the nearest: --count; see gipo-x run --help"),
        (["run", "one"], "unrecognized arguments: one; see gipo-x run --help"),
        ([], "the following arguments are required: COMMAND; see gipo-x --help"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_to_look(arguments, message):
    parser = Parser("gipo-x")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("run")
    command.add_argument("--count", type=whole(1, 9))
    with pytest.raises(UserError) as caught:
        parser.parse_args(arguments)
    assert str(caught.value) == message
