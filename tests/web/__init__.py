"""Checks of the built book in a browser: `make test-web`."""
