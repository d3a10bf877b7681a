"""A small provider of OpenID Connect over real HTTP, with real keys, that can be made to lie."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "cleanroom", "a secret of both"


@dataclass
class SmallProvider:
    """Knows one person, and lets her in at once. What a test changes here, it says from then on."""

    address: str
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "248289761001", "preferred_username": "Anna.Müller"})
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "first"}))
    # What replaces claims of an ID token; None takes one away.
    lies: dict[str, Any] = field(default_factory=dict)
    # How the next ID token is signed: "good", "unsigned", "shared" (HS256 with the public key), "other" (another key).
    signed: str = "good"
    denies: bool = False
    issuer: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def discovery(self, _: Request) -> Response:
        """Its description of itself."""
        return JSONResponse(
            {
                "issuer": self.issuer or self.address,
                "authorization_endpoint": f"{self.address}/authorize",
                "token_endpoint": f"{self.address}/token",
                "jwks_uri": f"{self.address}/keys",
            }
        )

    def keys(self, _: Request) -> Response:
        """Its public keys."""
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    def authorize(self, request: Request) -> Response:
        """Send the person back with a code."""
        asked = dict(request.query_params)
        self.asked.append(asked)
        said = {"state": asked["state"], "iss": self.address}
        if self.denies:
            said |= {"error": "access_denied", "error_description": "she said <no>"}
        else:
            code = secrets.token_urlsafe(16)
            self._codes[code] = asked
            said["code"] = code
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(said)}", 302)

    async def token(self, request: Request) -> Response:
        """Take a code back, once, from the client that proves to be the one that asked."""
        said = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        credentials = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self._codes.pop(said.get("code", ""), None)
        verifier = hashlib.sha256(said.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or request.headers.get("authorization") != f"Basic {credentials}"
            or said.get("redirect_uri") != asked["redirect_uri"]
            or asked["code_challenge_method"] != "S256"
            or base64.urlsafe_b64encode(verifier).decode().rstrip("=") != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            **self.person,
            "iss": self.address,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.lies,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        answer = {"access_token": "x", "token_type": "Bearer", "id_token": self._sign(claims)}
        return JSONResponse(answer)

    def _sign(self, claims: dict[str, Any]) -> str:
        if self.signed == "unsigned":
            return f"{_words({'alg': 'none'}, claims)}."
        if self.signed == "shared":
            words = _words({"alg": "HS256", "kid": "first"}, claims)
            return f"{words}.{_base64(hmac.digest(self.key.as_pem(private=False), words.encode(), 'sha256'))}"
        key = RSAKey.generate_key(2048, {"kid": "first"}) if self.signed == "other" else self.key
        return jwt.encode({"alg": "RS256", "kid": str(key.kid)}, claims, key, algorithms=["RS256"])


def _words(*parts: dict[str, Any]) -> str:
    return ".".join(_base64(json.dumps(part).encode()) for part in parts)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@contextmanager
def running() -> Iterator[SmallProvider]:
    """A provider that answers."""
    listening = socket.create_server(("127.0.0.1", 0))
    provider = SmallProvider(f"http://127.0.0.1:{listening.getsockname()[1]}")
    application = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", provider.discovery),
            Route("/keys", provider.keys),
            Route("/authorize", provider.authorize),
            Route("/token", provider.token, methods=["POST"]),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(timeout=30)
