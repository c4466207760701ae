"""Reports of runs: one page that holds everything it shows, the same as JSON and CSV, and several runs side by side."""
