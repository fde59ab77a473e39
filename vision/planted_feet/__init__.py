"""Camera motion from planted feet: a filter that moves the background only on evidence.

Steps, in order: describe the person (body.py), undo exchanged legs (untangling.py), decide which
feet count (visibility.py), weigh every camera velocity by the feet (likelihood.py), filter over
time (hmm.py), decide between motion and stillness (gates.py), add hand-held shake (shake.py),
scale to the depth of the background (depth_share.py), and rate the result (confidence.py).
estimate.py runs them; walking.py gives the motion that an artist asks for where no feet tell it.
"""
