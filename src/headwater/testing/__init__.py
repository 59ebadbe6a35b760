"""What a test of an app, or of an adapter, needs: a clock, and the contract suites."""
