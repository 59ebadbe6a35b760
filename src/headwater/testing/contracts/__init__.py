"""Contract suites: an adapter proves itself by an (almost) empty subclass of each."""
