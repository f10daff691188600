"""`make release`: everything a user installs, made from one commit and twice the same."""
