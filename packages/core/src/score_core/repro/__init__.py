"""Published results as data: the table rows of five papers, how to rerun one, and how the rerun compares.

`schema` says what a row is, `tables` collects the rows of the installed packages, `runner` runs an experiment,
`compare` gives verdicts, `report` writes those of one run down as an HTML page and `site` those of all,
`compare_results` puts two runs beside each other, `sanity` draws FID against the number of samples, `cite` names the
papers. The ``repro`` command (`__main__`) puts them together.
"""
