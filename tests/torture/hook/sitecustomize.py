"""Python runs this first in every process of an installation under torture, because its directory is on PYTHONPATH.

Product code is not touched: what is to die at a named boundary is told so by an audit hook of Python's, and by looking
over the shoulder of the driver of the database.
"""

import os

if os.environ.get("TORTURE_CONTROL"):
    import striking

    striking.install(os.environ["TORTURE_CONTROL"])
