"""A tracking store that may be away for a while: one kind of error, and waiting where that is worth it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

from vae_sweep.errors import StoreError, first_line
from vae_sweep.stores import masked

log = logging.getLogger(__name__)

TRY_EVERY = 5.0  # seconds


class Patient:
    """Calls of ``client``, tried again for ``patience`` seconds where a failure may pass; what fails is a StoreError.

    ``failures`` are the kinds of errors that the client raises, ``may_pass`` tells those that time may mend. Each try
    runs inside ``guard()``; between tries an interrupt ends the waiting.
    """

    def __init__(
        self,
        client: Any,
        uri: str,
        failures: tuple[type[Exception], ...],
        may_pass: Callable[[Exception], bool],
        patience: float = 0.0,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._client, self._uri, self._failures, self._may_pass = client, uri, failures, may_pass
        self._guard = guard
        self.patience = patience

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            began, said = time.monotonic(), False
            while True:
                try:
                    with self._guard():
                        return method(*arguments, **named)
                except self._failures as error:
                    failure = StoreError(f"the tracking store {masked(self._uri)} failed ({first_line(error)})")
                    left = self.patience - (time.monotonic() - began)
                    if left <= 0 or not self._may_pass(error):
                        raise failure from error
                    if not said:
                        log.warning("%s; trying again for up to %.0f s", failure, left)
                        said = True
                    time.sleep(min(TRY_EVERY, left))

        return call

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """While inside, a failure is raised at once."""
        before, self.patience = self.patience, 0.0
        try:
            yield
        finally:
            self.patience = before
