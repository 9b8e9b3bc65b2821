"""The browser of the tests: where it is, and its installation by ``python -m tests.chromium``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Playwright

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
INSTALL = ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends")
PACKAGES = ("chromium", "fonts-dejavu-core")
REMEDY = f"as root, apt-get install {' '.join(PACKAGES)} (or: playwright install --with-deps chromium)"


def installed() -> str | None:
    """The path of a browser that starts; some systems have a script there that only explains."""
    for path in filter(None, map(shutil.which, NAMES)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def found(playwright: Playwright) -> str | None:
    """The path of a browser, of this machine or of Playwright."""
    own = playwright.chromium.executable_path
    return installed() or (own if Path(own).exists() else None)


def install() -> None:
    """Install a browser where there is none and this account may; say so where that fails."""
    if installed() or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    for command in (["apt-get", "update", "--quiet"], [*INSTALL, *PACKAGES]):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(command, check=False, env=environment).returncode != 0:
            sys.stderr.write(f"no browser could be installed: {' '.join(command)} failed\n")
            return


if __name__ == "__main__":
    install()
