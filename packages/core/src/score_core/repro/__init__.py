"""Published results as data: the table rows of five papers, how to rerun one, and how the rerun compares.

`schema` says what a row is, `tables` collects the rows of the installed packages, `runner` runs an experiment,
`compare` gives verdicts, `report` writes them down as one HTML page, `cite` names the papers. The ``repro`` command
(`__main__`) puts them together.
"""
