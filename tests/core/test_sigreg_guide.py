import doctest
import re
from pathlib import Path

from openjepa.core.spread import FLOORS, SIGREG_SCALES

GUIDE = Path(__file__).parents[2] / "docs/guides/sigreg.md"


def test_the_code_in_the_guide_prints_what_it_says():
    result = doctest.testfile(str(GUIDE), module_relative=False)
    assert result.attempted >= 8 and result.failed == 0


def test_the_tables_in_the_guide_are_complete():
    named = set(re.findall(r"`(\w+)`", GUIDE.read_text()))
    assert set(SIGREG_SCALES) <= named and {"epps_pulley", *FLOORS} <= named
