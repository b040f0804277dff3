"""Every place where Stepwise reaches into a library's insides, one module a library: the list in
docs/library-patches.md is made of these, and the tests beside them look at the library's side of each.
"""
