"""Install the browser that the tests need, where there is none and this account may install."""

import os
import shutil
import subprocess
import sys

from evaluation.bench.page import installed

PACKAGES = ("chromium", "fonts-dejavu-core")
INSTALL = ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *PACKAGES)
REMEDY = f"install chromium (under Debian, as root: apt-get install {' '.join(PACKAGES)})"


def main() -> None:
    """Say so where it fails; its tests are skipped then."""
    if installed() or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (("apt-get", "update", "--quiet"), INSTALL):
        if subprocess.run(command, check=False, env=environment).returncode != 0:
            sys.stderr.write(f"no browser could be installed: {' '.join(command)} failed\n")
            return


if __name__ == "__main__":
    main()
