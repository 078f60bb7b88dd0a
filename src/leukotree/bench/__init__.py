"""How fast the parts of training are on this machine, each beside its limit.

`clock` measures things in turn, `setting` says what is measured, a module per part knows its limit, `measure`
runs them.
"""
