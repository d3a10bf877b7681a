"""Bisection: which commit, image or state of the packages broke something.

`search` says what to probe next and knows nothing of rows; `candidates` finds what may be the first bad one; `start`
checks a request and writes it down; `driver` does a step whenever a trial has ended; `evidence` shows what was found.
"""
