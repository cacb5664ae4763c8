"""Search-space presets, one YAML file each."""
