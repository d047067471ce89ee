"""Published results as data: the table rows of five papers, how to rerun one, and how the rerun compares.

`schema` says what a row is, `recipes` how published cells are computed, `tables` collects the rows of the installed
packages. `resolve` makes an experiment of any row that can run, `planning` says what it needs (`needs`) and how long it
takes (`probe`), `runner` runs its stages (`place`, `configure` and `again` are stages of no program), `compare` gives
verdicts, `report` writes them down as one HTML page, `cite` names the papers. The ``repro`` command (`__main__`) puts
them together.
"""
