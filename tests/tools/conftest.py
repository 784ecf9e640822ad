"""The tools are scripts that find each other beside themselves; their tests find them the same way."""

import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
