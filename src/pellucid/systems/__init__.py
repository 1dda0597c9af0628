"""Systems: named models of the literature, each the wiring of parts that stand elsewhere."""
