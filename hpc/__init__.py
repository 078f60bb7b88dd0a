"""The launching: studies, search, folds, clusters. Imports neither timm nor webdataset."""
