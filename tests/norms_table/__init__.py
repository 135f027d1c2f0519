"""Which norms of other packages the lens reads rightly: entries as data, an oracle in float64, and a judge."""
