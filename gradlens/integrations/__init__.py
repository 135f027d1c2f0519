"""Two lines in other people's trainers, and what their trackers need; nothing else of gradlens imports this room."""
