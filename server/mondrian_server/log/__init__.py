"""The log: numbered events of each analysis, and cursors into it."""
