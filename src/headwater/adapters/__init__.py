"""Databases and channels, one folder a technology; an app loads them by URL scheme."""
