"""The package as a user gets it: built from the sdist, installed with no Go and no compiler."""
