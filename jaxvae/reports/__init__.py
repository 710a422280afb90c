"""What people look at: HTML pages, figures, text, model cards."""
