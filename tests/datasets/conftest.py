"""Makes the helpers beside the tests importable; spawned processes inherit the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
