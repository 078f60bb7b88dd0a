"""The report of a study.

`collect` reads the study's files. Each module of `sections` computes the tables and figures of its sections.
`page` renders them.
"""
