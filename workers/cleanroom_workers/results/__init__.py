"""Test results as harnesses report them, to test cases: files that a guest left, and what a step printed.

One module a format of files (`FORMATS` in `files`), one a harness whose lines are recognised in a log
(`HARNESSES` in `log`). All of it comes from a guest, so each reads piece by piece and is bounded: bytes, cases,
the length of names and messages, the depth of XML. Nothing that is malformed ends more than the reading of its file.
"""
