"""Data: manifests, importers, phantom smears, folds, shards, streams and their audit."""
