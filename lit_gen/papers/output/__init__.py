"""A table's report in every form that it is read in: Markdown, LaTeX, CSV, JSON, a terminal, a web page, W&B."""
