"""Where pretrained parts come from and how their files are read; nothing of a package is ever imported."""
