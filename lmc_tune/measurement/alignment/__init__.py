"""Alignment: permutations of hidden units that bring one network's weights close to another's.

A permutation of the units of a layer, undone in the layers that read them, changes the weights and not the function.
"""
