"""Checks whether OSC and the page can listen as the settings say, before anything is opened or started.

Each function raises ``ListenError`` if its server is enabled and cannot listen on its host, if its ``allow`` is invalid or
missing, or if the port is taken. A port of 0 is not checked.
"""

from __future__ import annotations

from perceivers_live.controls.settings import OscSettings, PageSettings, Settings
from perceivers_live.osc.wire import listen as listen_for_osc
from perceivers_live.page.server import listen as listen_for_pages


def check_osc(osc: OscSettings, port: int) -> None:
    if osc.enabled:
        listen_for_osc(osc.host, port, osc.allow)[0].close()


def check_page(page: PageSettings, port: int) -> None:
    if page.enabled:
        listen_for_pages(page.host, port, page.allow).close()


def check_addresses(settings: Settings, *, osc_port: int, page_port: int) -> None:
    check_osc(settings.osc, osc_port)
    check_page(settings.page, page_port)
