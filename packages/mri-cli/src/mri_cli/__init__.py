"""The mri-cli command host."""
