"""Files that others may not read."""

import stat

from foundation.files import restrict


def test_what_others_may_read_is_made_private(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_text("x")
    path.chmod(0o644)
    assert restrict(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_removed_meanwhile_is_no_fault(tmp_path):
    assert restrict(tmp_path / "ledger.db-journal")
