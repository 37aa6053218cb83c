"""The Mondrian client."""
