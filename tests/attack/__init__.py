"""The whole list of attacks against a running gateway: `make attack`."""
