"""``fourways up`` with a prediction store in PostgreSQL.

``python -m tools.torture.kills_host up …`` takes the same options.

The host keeps predictions in SQLite, which is no process that can be killed. This one writes the
address in ``FOURWAYS_TORTURE_STORE`` in place of SQLite's, where its workloads read it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from fourways_cli.embedded import state as states
from fourways_cli.main import main

STORE_VARIABLE = "FOURWAYS_TORTURE_STORE"


def lay_out(state: Path, volumes: Mapping[str, Path], secrets: Mapping[str, Path]) -> None:
    """Create what the host creates, and name the other store."""
    states.lay_out(state, volumes, secrets)
    (state / "store" / "uri").write_text(os.environ[STORE_VARIABLE])


if __name__ == "__main__":
    with patch("fourways_cli.embedded.host.lay_out", lay_out):
        main()
