"""The experiments: one python file each, whose ``get_config()`` returns one complete ConfigDict.

``vp/``, ``subvp/`` and ``ve/`` hold the published experiments under the names of the original repository; ``digits``
and ``photos`` are small ones on embedded data. `_families` are the building blocks, `resolve` finds a file by its name,
`load` is what the program calls, `_house` repairs and completes any such file.
"""
