"""Telling others of changes of state: webhooks, chat rooms, e-mail, and the forges' statuses of commits.

`endpoints` reads whom the site tells of what, `telling` makes messages of changes, once each, `sending` sends one,
`service` is the process: what is sent is leased, tried again with growing pauses, and told with the same key each time.
"""
