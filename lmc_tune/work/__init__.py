"""The unit of work: a cohort in, rows out. No Ray, no MLflow."""
