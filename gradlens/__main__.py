"""``python -m gradlens``."""

from gradlens.cli.main import main

main()
