"""Dependency parsing: CoNLL-U, the arc-standard system and its oracle, attachment scores, and the task itself."""
