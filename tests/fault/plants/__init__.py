"""Planted bugs: small patches from outside, each of which breaks a promise, and the detectors that must see it.

A rig or a suite that catches none proves nothing. `./dev prove --plants` plants each, waits until it is caught, and runs the
trial that caught it again without: what is seen then as well was no catch.
"""
