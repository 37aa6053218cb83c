"""The program that made mondrian-tiny: it draws pictures, trains, exports and scores."""
