"""What a run is to be: sizes that follow its data, the numbers a user tunes, and its length."""
