"""Making recordings: a job makes one, and one runner makes them all, several at a time."""
