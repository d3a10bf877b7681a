"""The interface for programs, `/api/v1`: the same facts as the pages and `--format json`.

`application` puts it together, `models` has the forms of answers, `facts` and `published` answer, `paging` gives long
lists in parts, `conditional` sends nothing twice, `problems` says what went wrong, `access` asks who may read.
"""
