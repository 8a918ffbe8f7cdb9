"""The page about a compiled directory, `report.html`.

It draws what manifest and report say; no figure is computed for the page alone.
"""
