"""The page about a compiled directory, `report.html`."""
