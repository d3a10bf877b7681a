"""Who may read: whoever may read the pages. A program says who it is by `Authorization: Bearer TOKEN`."""

from __future__ import annotations

from fastapi import Request

from cleanroom_base.errors import InputError
from cleanroom_db.sessions import TooManyAttempts
from cleanroom_db.tokens import TokenRefused
from cleanroom_master.web import visitors
from cleanroom_master.web.api.problems import Refused
from cleanroom_master.web.visitors import SignInNeeded


async def may_read(request: Request) -> None:
    """Raise Refused unless who asks may read."""
    try:
        await visitors.identify(request)
    except (TokenRefused, SignInNeeded) as error:
        raise Refused(401, "You are not let in", f"{error.message}.", hint=error.hint or "") from error
    except TooManyAttempts as error:
        raise Refused(429, "Too many attempts failed", f"{error.message}.", hint=error.hint or "") from error
    except InputError as error:
        raise Refused(403, "You may not read", f"{error.message}.", hint=error.hint or "") from error
