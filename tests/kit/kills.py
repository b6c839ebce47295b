"""How many kills a test makes that kills at random moments.

The suite makes a few, other ones at each run; ``make torture-kills`` makes as many as
``FOURWAYS_KILLS`` says.
"""

import os

LONG_KILLS = int(os.environ.get("FOURWAYS_KILLS", "0"))
"""The number of kills in the long form; 0 in the suite."""
