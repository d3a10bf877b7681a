"""Signing in through a provider of OpenID Connect, by the authorization code flow with PKCE.

What has to be remembered between leaving for the provider and coming back is derived from one random cookie: state,
nonce and verifier. Sources: OpenID Connect Core 1.0, OpenID Connect Discovery 1.0, RFC 7636, RFC 9207.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings

_SCOPE = "openid profile email"
# Signatures that only the provider can make; what both sides can make (HS256) and none at all are no proof.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_TIMEOUT = 10.0
_KEPT = 600.0
_LEEWAY = 60
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class SignInFailed(InputError):
    """The provider did not let somebody in, or what it says is not valid."""


class ProviderAway(InfrastructureError):
    """The OpenID Connect provider does not answer."""


@dataclass(frozen=True)
class Person:
    """Somebody as the provider knows him: `subject` for ever, `called` as he likes to be."""

    subject: str
    called: str


class Provider:
    """A provider of OpenID Connect; what it publishes about itself is kept for ten minutes."""

    def __init__(self, issuer: str, client: str, secret: str | None, name: str, back: str) -> None:
        """`back` is our address to which it sends people back. Raises InputError for an issuer without TLS."""
        parts = urlsplit(issuer)
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise InputError(f"openid.issuer is an address that begins with https://, not {issuer[:200]!r}")
        self.issuer, self.name = issuer, name
        self._client, self._secret, self._back = client, secret, back
        self._lock = threading.Lock()
        self._known: tuple[float, Mapping[str, Any], KeySet] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Provider | None:
        """The provider that the settings name, if they name one."""
        issuer = settings.optional("openid.issuer")
        if issuer is None:
            return None
        back = f"{settings.web_url}/sign-in/openid/return"
        secret = settings.optional("openid.secret")
        return cls(issuer, settings.text("openid.client"), secret, settings.text("openid.name"), back)

    def leave(self, visit: str, then: str) -> str:
        """Where somebody goes to sign in; `visit` is the secret of his cookie, `then` where he wants to go afterwards.

        Raises ProviderAway.
        """
        published, _ = self._read()
        address, _ = self._session().create_authorization_url(
            published["authorization_endpoint"],
            state=_state(visit, then),
            nonce=_derived(visit, "nonce"),
            code_verifier=_derived(visit, "verifier"),
        )
        return str(address)

    def come_back(self, visit: str, said: Mapping[str, str]) -> tuple[Person, str]:
        """Who has come back from the provider with what it said, and where he wanted to go.

        Raises SignInFailed and ProviderAway.
        """
        state = said.get("state", "")
        then = _wanted(state)
        if not visit or not hmac.compare_digest(_state(visit, then), state):
            raise SignInFailed("this sign-in was not begun in this browser", hint="begin again from the page 'Sign in'")
        if "error" in said:
            told = said.get("error_description") or said["error"]
            raise SignInFailed(f"{self.name} did not let you in: {told[:300]}")
        if said.get("iss", self.issuer) != self.issuer:
            raise SignInFailed("another provider answered than the one that was asked")
        published, _ = self._read()
        try:
            token = self._session().fetch_token(
                published["token_endpoint"],
                code=said.get("code", ""),
                code_verifier=_derived(visit, "verifier"),
                timeout=_TIMEOUT,
            )
        except (AuthlibBaseError, ValueError) as error:
            raise SignInFailed(f"{self.name} did not take its own code back: {error}") from error
        except requests.RequestException as error:
            raise ProviderAway(f"{self.name} does not answer: {type(error).__name__}") from error
        claims = self._claims(str(token.get("id_token", "")), _derived(visit, "nonce"))
        called = str(claims.get("preferred_username") or claims.get("email") or claims["sub"])
        return Person(str(claims["sub"]), called), then

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        """What a signed token of the provider says of somebody. Raises SignInFailed."""
        try:
            try:
                claims = jwt.decode(token, self._read()[1], _ALGORITHMS).claims
            except (JoseError, ValueError):
                # It may have new keys.
                claims = jwt.decode(token, self._read(again=True)[1], _ALGORITHMS).claims
            jwt.JWTClaimsRegistry(
                leeway=_LEEWAY,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self._client},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError) as error:
            raise SignInFailed(f"what {self.name} says is not valid: {error}") from error
        party = claims.get("azp", self._client)
        if party != self._client or not 0 < len(str(claims["sub"])) <= 255:
            raise SignInFailed(f"what {self.name} says is not for this Cleanroom")
        return claims

    def _session(self) -> OAuth2Session:
        how = "none" if self._secret is None else "client_secret_basic"
        return OAuth2Session(
            self._client,
            self._secret,
            token_endpoint_auth_method=how,
            scope=_SCOPE,
            redirect_uri=self._back,
            code_challenge_method="S256",
        )

    def _read(self, *, again: bool = False) -> tuple[Mapping[str, Any], KeySet]:
        """What the provider publishes about itself, and its keys. Raises ProviderAway."""
        with self._lock:
            if self._known is not None and not again and time.monotonic() - self._known[0] < _KEPT:
                return self._known[1:]
            published = self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
            if published.get("issuer") != self.issuer:
                raise ProviderAway(f"{self.name} says that it is {str(published.get('issuer'))[:200]!r}")
            if missing := [name for name in _ENDPOINTS if not isinstance(published.get(name), str)]:
                raise ProviderAway(f"{self.name} does not say its {', '.join(missing)}")
            try:
                keys = KeySet.import_key_set(self._get(published["jwks_uri"]))
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise ProviderAway(f"the keys of {self.name} cannot be read: {error}") from error
            self._known = time.monotonic(), published, keys
            return published, keys

    def _get(self, address: str) -> Any:
        try:
            answer = requests.get(address, timeout=_TIMEOUT, allow_redirects=False)
            answer.raise_for_status()
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise ProviderAway(f"{self.name} does not answer: {type(error).__name__}") from error
        if not isinstance(found, dict):
            raise ProviderAway(f"{self.name} answers with something else than an object")
        return found


def _derived(visit: str, what: str) -> str:
    """A secret of its own for each purpose, 43 characters as RFC 7636 wants them at least."""
    return base64.urlsafe_b64encode(hmac.digest(visit.encode(), what.encode(), hashlib.sha256)).decode().rstrip("=")


def _state(visit: str, then: str) -> str:
    return f"{_derived(visit, f'state {then}')}.{base64.urlsafe_b64encode(then.encode()).decode()}"


def _wanted(state: str) -> str:
    """Where somebody wanted to go, which is not to be believed before the state was compared."""
    try:
        return base64.urlsafe_b64decode(state.partition(".")[2].encode()).decode()
    except ValueError:
        return "/"
