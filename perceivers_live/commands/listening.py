"""Checks whether OSC and the page can listen as the settings say, before anything is opened or started."""

from __future__ import annotations

from perceivers_live.controls.settings import Settings
from perceivers_live.osc.wire import listen as listen_for_osc
from perceivers_live.page.server import listen as listen_for_pages


def check_listening(settings: Settings, *, osc_port: int, page_port: int) -> None:
    """Raises ``ListenError`` if OSC or the page, where enabled, cannot listen on its host, or if its ``allow`` is invalid or
    missing, or its port taken. A port of 0 is not checked.
    """
    if settings.osc.enabled:
        listen_for_osc(settings.osc.host, osc_port, settings.osc.allow)[0].close()
    if settings.page.enabled:
        listen_for_pages(settings.page.host, page_port, settings.page.allow).close()
