"""Real servers for tests: found or installed, started on a private port and data folder, and stopped by their process id."""
