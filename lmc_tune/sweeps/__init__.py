"""Running a whole search space: planning, scheduling on Ray Tune, resuming."""
