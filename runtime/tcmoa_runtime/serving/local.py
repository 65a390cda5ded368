"""The service in this process, on one listening socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final

from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.serve import ServeOptions
from tcmoa_runtime.serving.application import make_application
from tcmoa_runtime.serving.bundles import loaded_fusers
from tcmoa_runtime.serving.server import ServiceServer
from tcmoa_runtime.stop_signals import handled_stop_signals
from tcmoa_runtime.web.access import Access, choose_token
from tcmoa_runtime.web.address import Address

SUBJECT: Final = "service"


def service_access(address: Address, token: str | None, port: int) -> Access:
    """Return who may connect to a service.

    Args:
        address: What it listens on.
        token: The required token; None makes one if the address is not on loopback.
        port: Its port.

    Raises:
        InputError: The token has a wrong form.
    """
    return Access(
        address.is_loopback,
        choose_token(token, is_loopback=address.is_loopback),
        port,
        subject=SUBJECT,
        use="use this service",
        token_hint="Open the URL that `tcmoa serve` printed",
    )


def service_url(address: Address, access: Access) -> str:
    """Return the URL to open in a browser, with the token if one is required."""
    token = f"?token={access.token}" if access.token else ""
    return f"http://{address.url_host}:{access.port}/{token}"


def serve_here(
    bundles: Mapping[str, str],
    options: ServeOptions,
    fuser_options: FuserOptions,
    *,
    address: Address,
    token: str | None = None,
    on_started: Callable[[str], None],
) -> None:
    """Serve bundles in this process until a signal: then requests in flight end. A second signal cuts them off.

    Args:
        bundles: Paths, or names of ready bundles, by name.
        options: Limits.
        fuser_options: How to load, fit, and the prompt of requests that give none.
        address: What to listen on.
        token: The token that clients need; made if the address is not on loopback.
        on_started: Called with the URL when requests are taken.

    Raises:
        ListenError: The address cannot be listened on.
        InputError: The token or an option is wrong.
        BundleError: A bundle must not be loaded.
        TcmoaError: Requests had not ended in time, and were cut off.
        KeyboardInterrupt: There was a second signal.
    """
    prompt = Prompt.read(fuser_options.prompt_scale, fuser_options.prompt_shift)
    choose_token(token, is_loopback=address.is_loopback)
    with closing(address.bind(subject=SUBJECT)) as listener:
        access = service_access(address, token, listener.getsockname()[1])
        with loaded_fusers(bundles, fuser_options) as fusers:
            app = make_application(fusers, options, access=access, prompt=prompt)
            server = ServiceServer(app, listener)
            signals: list[object] = []

            def stop(signal: object) -> None:
                signals.append(signal)
                server.stop()

            with handled_stop_signals(stop):
                has_ended = server.run(options.grace, lambda: on_started(service_url(address, access)))
                app.state.service.queue.shutdown(wait=True)  # native code cannot be interrupted
    if len(signals) > 1:
        raise KeyboardInterrupt
    if not has_ended:
        raise TcmoaError(
            f"requests had not ended {options.grace:g} s after the signal, and were cut off",
            subject=SUBJECT,
            remedy="Give them more time with {grace}.",
            settings={"grace": 2 * options.grace},
        )
