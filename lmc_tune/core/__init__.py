"""Pure numbers: no files, clock, global random state, Ray or MLflow."""
