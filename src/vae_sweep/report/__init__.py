"""The report of one or several sweeps: an HTML page, its figures, LaTeX of its main table."""
