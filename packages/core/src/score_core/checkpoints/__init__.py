"""Checkpoint files: formats, the atomic store, strict restoring.

``msgpack_format`` bytes <-> tree, ``store`` files in a folder, ``tree`` names and shapes against a target.
Nothing is imported here, so that a command which only lists files does not pay for NumPy.
"""
