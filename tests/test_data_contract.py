"""The data contract is what logs and stores really hold, and what its page says."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import orjson
import pytest
from mcap.reader import make_reader

from datamodules.ingest import IngestOptions, ingest
from gipo.common.errors import UserError
from gipo.common.transition import FIELDS, LOGGED, STORE, Field, tables
from robots.log import Step
from robots.log.columns import Collector
from robots.log.episode import Episode
from robots.log.schema import json_schemas
from tests.contract import assert_contract
from tests.robots.builders import step_row

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "data-contract.md"
OLD_LOG = ROOT / "tests" / "data" / "written_by_0.1" / "log.mcap"


def test_the_page_has_the_tables_of_the_code() -> None:
    _, shown, _ = re.split(r"<!-- /?fields.*-->\n", PAGE.read_text())
    assert shown.strip() == tables()


def test_a_step_of_the_log_has_its_fields() -> None:
    assert [field.name for field in fields(Step)] == [field.name for field in LOGGED]


def test_other_tools_are_told_what_version_0_1_told_them() -> None:
    with open(OLD_LOG, "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    for schema in summary.schemas.values():
        topic = next(each.topic for each in summary.channels.values() if each.schema_id == schema.id)
        before, now = orjson.loads(schema.data), orjson.loads(json_schemas()[topic.removeprefix("/")])
        added = set(now["properties"]) - set(before["properties"])
        assert added <= {field.name for field in FIELDS if field.later}
        assert {name: each for name, each in now["properties"].items() if name not in added} == before["properties"]


@pytest.mark.parametrize(
    "field", [field for field in LOGGED if field.later and not field.silent], ids=lambda field: field.name
)
def test_rows_older_than_a_field_mean_its_default(field: Field) -> None:
    rows = [orjson.loads(orjson.dumps(step_row(index), option=orjson.OPT_SERIALIZE_NUMPY)) for index in range(9)]
    for row in rows:
        del row[field.name]
    collector = Collector("a.mcap")
    collector.take([("step", orjson.dumps(row)) for row in rows])
    (episode,) = collector.episodes({})
    np.testing.assert_array_equal(episode[field.name], field.default_of(episode.columns))
    assert episode[field.name].dtype == field.type_for(whole=True)


@pytest.mark.parametrize("said", ["nothing", None])
def test_what_a_robot_cannot_know_is_no_column_of_its_log(said: str | None) -> None:
    rows = [orjson.loads(orjson.dumps(step_row(index), option=orjson.OPT_SERIALIZE_NUMPY)) for index in range(9)]
    for row in rows:
        row["privileged"] = None
        if said == "nothing":
            del row["privileged"]
    collector = Collector("a.mcap")
    collector.take([("step", orjson.dumps(row)) for row in rows])
    (episode,) = collector.episodes({})
    assert "privileged" not in episode.columns


@pytest.mark.parametrize(("first", "second"), [(None, [1.0]), ([1.0], None), ([1.0], [1.0, 2.0])])
@pytest.mark.parametrize("apart", [False, True])
def test_what_is_privileged_is_said_of_a_whole_episode_alike(first: object, second: object, apart: bool) -> None:
    rows = []
    for index, said in enumerate((first, second)):
        row = orjson.loads(orjson.dumps(step_row(index), option=orjson.OPT_SERIALIZE_NUMPY))
        rows.append(("step", orjson.dumps(row | {"privileged": said})))
    with pytest.raises(UserError, match=r"a row that no log of gipo-robot holds|changes its shape"):
        _episodes([rows[:1], rows[1:]] if apart else [rows])


def _episodes(blocks: list[list[tuple[str, bytes]]]) -> list[Episode]:
    collector = Collector("a.mcap")
    for block in blocks:
        collector.take(block)
    return collector.episodes({})


@pytest.mark.parametrize("field", [field for field in LOGGED if not field.later], ids=lambda field: field.name)
def test_rows_without_any_other_field_are_of_no_log_of_ours(field: Field) -> None:
    row = orjson.loads(orjson.dumps(step_row(0), option=orjson.OPT_SERIALIZE_NUMPY))
    del row[field.name]
    with pytest.raises(UserError, match=f"KeyError '{field.name}'"):
        Collector("a.mcap").take([("step", orjson.dumps(row))])


def test_a_store_of_a_log_of_version_0_1(tmp_path: Path) -> None:
    store = ingest(OLD_LOG, IngestOptions(cache=tmp_path, workers=1), progress=False)
    assert_contract(store.frames, STORE, {"O": 3, "D": 1})
    for field in FIELDS:
        if field.later and not field.silent and STORE in field.places:
            columns = {name: store.frames[name].numpy() for name in ("valid", "policy_version")}
            np.testing.assert_array_equal(store.frames[field.path].numpy(), field.default_of(columns))
