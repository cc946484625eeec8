"""What flowzoo's speed is measured with, beside the obvious alternatives: `python -m flowzoo.bench COMMAND --help`."""
