"""`leukotree status --watch`: how far a study is, again and again. It only reads."""
