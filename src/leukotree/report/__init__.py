"""The report of a study: `collect` reads its files, `scores` and `compare` compute, `write` renders Markdown and HTML."""
