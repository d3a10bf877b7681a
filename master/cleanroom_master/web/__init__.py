"""The web status: where a release is, why it is there, and what happens next.

It reads rows and files. Everything in rows that came out of a repository or a guest is hostile: templates escape, and
`text` makes what is left harmless. Pages are whole without JavaScript, and live with it.

`application` puts it together, `site` is what pages work with, `pages` has a router a module, `templating` is the one
place where templates are rendered, `headers` the one place for headers, `errors` for what goes wrong.
"""
