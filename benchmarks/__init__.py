"""What Headwater costs, beside its peers and the raw driver, in one run: `./dev bench`."""
