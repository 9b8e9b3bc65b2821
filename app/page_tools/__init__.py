"""What the page measures with: the one part of it that imports `evaluation`.

`fulcrum serve` hands it to the page, which works without it.
"""

from app.page.tools import PageTools
from app.page_tools import laboratory
from app.page_tools.attempts import attempts

__all__ = ["TOOLS"]

TOOLS = PageTools(attempts=attempts, tabs=(("Laboratory", laboratory.build),))
