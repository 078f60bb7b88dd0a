"""A package, so that ranks find these modules and not the `tests` that some library installs."""
