import sqlite3
from contextlib import closing

import pytest

from foundation.errors import IndexStateError
from foundation.sqlite import open_database, reading


def test_a_table_that_is_gone_is_damage_and_no_matter_of_permissions(tmp_path):
    path = tmp_path / "some.db"
    engine = open_database(path, [("first", ["CREATE TABLE rows (id INTEGER)"])], "put a copy back")
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE rows")
    with (
        pytest.raises(IndexStateError, match=r"no such table: rows\); put a copy back$"),
        reading(engine, path) as connection,
    ):
        connection.exec_driver_sql("SELECT * FROM rows")
    engine.dispose()
