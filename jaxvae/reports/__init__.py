"""Reports for people: HTML pages, figures, text, model cards."""
