"""Universal Dependencies English EWT, or any treebank in CoNLL-U: from a folder only, for no package holds it."""

from gradlens.lab.tasks.sources.source import Source

SOURCE = Source(
    name="ud-ewt",
    what="16,622 sentences with dependency trees, UD English EWT",
    licence="CC BY-SA 4.0",
    size="as in the folder",
    channel="folder",
    package="UD_English-EWT, from universaldependencies.org",
    patterns=("*.conllu", "*.conllu.gz"),
    needs="the treebank's files *-train.conllu, *-dev.conllu and *-test.conllu (as they are or with .gz)",
)
