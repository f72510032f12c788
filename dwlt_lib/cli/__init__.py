"""The command `dwlt`: it reads arguments, calls the library and prints.

What computes, checks or decides stands in the library.
"""
