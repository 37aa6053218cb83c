"""Programs that tests of the log run as processes of their own."""
