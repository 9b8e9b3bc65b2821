"""Commands, and what they print."""

import pytest

from app import cli


@pytest.fixture
def run(capsys):
    def command(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.fixture
def done(run):
    """Run a command that succeeds and return what it prints."""

    def command(*arguments):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        return out

    return command


@pytest.fixture
def refused(run):
    """Run a command that is a mistake and return the one line that it prints."""

    def command(*arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("fulcrum: ")
        assert err.count("\n") == 1
        assert len(err) < 500
        return err

    return command
