"""Puts the embedded model's own package on the path."""

import sys
from pathlib import Path

MODEL_FOLDER = Path(__file__).parents[2] / "models" / "mondrian-tiny"

sys.path.insert(0, str(MODEL_FOLDER))
