"""The arms of one token: they predict every bar, are scored on labels that none had seen; one is champion.

frozen:     the pretrained model as it is
chain:      the newest model of the chain over earlier listings, as it is
adapted:    the newest accepted weights; an arm is a procedure and keeps its record over them
challenger: new weights while the adapted arm trades, on probation
scratch:    the same network trained on the token's own labels alone; it shows where transfer does harm
ensemble:   what is transferred and scratch, mixed by how their labels have fared

From top to bottom: adapted, the base (chain, or frozen where this token's labels speak against the chain),
the ensemble where it has proven better than these, and no trade at all, which the ladder decides. Every step
is a `GateDecided` with its reason.
"""
