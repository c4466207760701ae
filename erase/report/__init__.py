"""Reports of runs: pages, grids, tables and charts, drawn from results that exist."""
