"""The model families, one file each: frozen config, modules and presets."""
