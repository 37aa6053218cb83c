"""The log: what any store must do, and what SQLite must survive."""
