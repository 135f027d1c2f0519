"""Questions that any recording can be asked: one file each, of the name of its analysis."""
