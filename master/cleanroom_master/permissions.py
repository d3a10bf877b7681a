"""Which action needs which role: all of it stands here."""

from __future__ import annotations

from dataclasses import dataclass

from cleanroom_db.accounts import Holder
from cleanroom_db.states import AccountRole


@dataclass(frozen=True)
class Action:
    """What people do through the web status.

    `name` is its name in the audit log, where the command line's is the same; `everything`: it changes what all
    products share, so that a role for one product is not enough. `button` and `done` are what people read.
    """

    name: str
    role: AccountRole
    button: str
    done: str
    everything: bool = False

    @property
    def word(self) -> str:
        """Its last word, by which addresses name it."""
        return self.name.rpartition(" ")[2]


ACTIONS = {
    action.word: action
    for action in (
        Action("release retry", AccountRole.DEVELOPER, "Retry", "What did not pass is tried again."),
        Action("release hold", AccountRole.DEVELOPER, "Hold", "It is held: it is not published before an approval."),
        Action("release approve", AccountRole.MANAGER, "Approve", "It is approved."),
        Action("release waive", AccountRole.MANAGER, "Waive a gate", "The gate is waived."),
        Action("release promote", AccountRole.MANAGER, "Promote", "The publisher was asked to promote it."),
        Action("release withdraw", AccountRole.MANAGER, "Withdraw", "The publisher was asked to withdraw it."),
        Action(
            "repository rollback", AccountRole.MANAGER, "Roll back to this", "The publisher was asked to go back.", True
        ),
        Action("host drain", AccountRole.ADMINISTRATOR, "Drain", "The host takes no new work.", True),
        Action("host resume", AccountRole.ADMINISTRATOR, "Resume", "The host takes work again.", True),
    )
}


def may(who: Holder | None, action: Action, product: str | None) -> bool:
    """Whether somebody (None: nobody is signed in) may do something to a product (None: to what all share)."""
    return who is not None and who.may(action.role, None if action.everything else product)


def needed(action: Action, product: str | None) -> str:
    """The role that an action needs, in words."""
    role = "release manager" if action.role is AccountRole.MANAGER else str(action.role)
    return f"the role {role} for {'all products' if action.everything or product is None else product}"
