"""Options of the live page of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tcmoa_runtime.options.option import Option
from tcmoa_runtime.web.address import OFF, Address, parse_page

PAGE_GROUP = "Live page"


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Where the live page of a stream is served."""

    page: Annotated[
        str,
        Option(
            "Address of a page that shows and controls the stream, e.g. 127.0.0.1:8080; a port of 0 is any free port; "
            "off for none.",
            group=PAGE_GROUP,
            metavar="HOST:PORT",
        ),
    ] = OFF

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        parse_page(self.page)

    @property
    def page_address(self) -> Address | None:
        """The address; None if there is no page."""
        return parse_page(self.page)
