"""The speed of the parts of training on this machine, each beside its limit.

`clock` measures works in turn, `setting` holds what they share, each part and its limit have a module, and
`measure` runs them.
"""
