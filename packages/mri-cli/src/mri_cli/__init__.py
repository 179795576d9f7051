"""The ``mri-cli`` command: one host for the commands of every installed ``mri-*`` package."""
