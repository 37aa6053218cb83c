"""Side-by-side measurements of Mondrian and of what a user would pick instead; never part of the tests."""
