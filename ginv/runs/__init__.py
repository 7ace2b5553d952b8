"""Where runs are kept and who trains them: the store, the grids, the machines. Knows no pixel."""
