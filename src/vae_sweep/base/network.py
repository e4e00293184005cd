"""Whether a server can be reached."""

from __future__ import annotations

import threading
import urllib.request

PROBE_SECONDS = 4.0  # for the whole question, name look-up included


def why_unreachable(url: str) -> str | None:
    """Return None where the server of ``url`` answers, through the proxy if one is set; else the reason."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                outcome.append(None)
        except Exception as error:
            outcome.append(str(getattr(error, "reason", None) or error))

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up has no time limit of its own
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0] if outcome else f"no answer within {PROBE_SECONDS:.0f} s"
