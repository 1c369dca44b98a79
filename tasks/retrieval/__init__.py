"""Which photos are compared tonight, and what is kept of it.

`plan` says which photos look at all others: all of them on a first night, later the new and changed ones and those
that lost a neighbour. `found` is what workers give back, `kept` what of it is stored, `horizons` how far the stored
lists of a state reach, `known` asks the warehouse.
"""
