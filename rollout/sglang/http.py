"""JSON over HTTP with a deadline, and every failure typed."""

from __future__ import annotations

from typing import Any

import aiohttp

from rollout.errors import EngineError


class Http:
    """One server. Connections are kept; nothing here waits without a deadline."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, *, deadline_s: float) -> Any:
        return await self._request("GET", path, None, deadline_s)

    async def post(self, path: str, body: dict[str, Any], *, deadline_s: float) -> Any:
        """The parsed answer. Raises EngineError: the cause that a server of ours names, else "unreachable" (no
        answer), "rejected" (4xx) or "dead" (5xx).
        """
        return await self._request("POST", path, body, deadline_s)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, method: str, path: str, body: dict[str, Any] | None, deadline_s: float) -> Any:
        if self._session is None:
            limits = aiohttp.TCPConnector(limit=0, force_close=False)
            self._session = aiohttp.ClientSession(connector=limits, headers=self._headers)
        timeout = aiohttp.ClientTimeout(total=deadline_s)
        try:
            async with self._session.request(method, self.url + path, json=body, timeout=timeout) as response:
                text = await response.text()
                status = response.status
                answer = await response.json(content_type=None) if text[:1] in "{[" and text else text
        except TimeoutError:
            raise EngineError("unreachable", f"{self.url}{path}: no answer in {deadline_s:.0f} s") from None
        except aiohttp.ClientConnectorError as error:
            raise EngineError("unreachable", f"{self.url}{path}: {error}") from None
        except (aiohttp.ClientError, OSError) as error:  # the connection broke: the request may have been seen
            raise EngineError("dead", f"{self.url}{path}: {type(error).__name__}: {error}") from None
        except ValueError as error:
            raise EngineError("bad_answer", f"{self.url}{path}: {error}") from None
        if status >= 400:
            cause = _cause(answer) or ("rejected" if status < 500 else "dead")
            raise EngineError(cause, f"{self.url}{path}: {status} {_message(answer)}")
        return answer


def _message(answer: Any) -> str:
    """The server says it in three ways: {"error": {"message"}}, {"error": text}, {"message"}."""
    if isinstance(answer, dict):
        error = answer.get("error", answer.get("message", answer))
        answer = error.get("message", error) if isinstance(error, dict) else error
    return str(answer)[:500]


def _cause(answer: Any) -> str:
    """As `ornith_jax.serve.http` tells it: {"error": {"cause"}}; "" from others."""
    error = answer.get("error") if isinstance(answer, dict) else None
    cause = error.get("cause") if isinstance(error, dict) else None
    return cause if cause in EngineError.CAUSES else ""
