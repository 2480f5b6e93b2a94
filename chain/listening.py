"""HOST:PORT as operators write it, and sockets that listen there."""

import os
import socket
from typing import Final

PORT_MAX: Final = 65_535


class AddressFault(ValueError):
    """What was given is no HOST:PORT. The message says what is."""


def split_host_port(address: str, place: str = "address", port_min: int = 1) -> tuple[str, int]:
    """Host, as it stands there, and port. Raises AddressFault, which calls the address `place`."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or any(not "!" <= character <= "~" for character in address):
        raise AddressFault(f"{place} is {address[:80]!r}: give HOST:PORT")
    good = port.isascii() and port.isdigit() and len(port) <= len(str(PORT_MAX))
    if not (good and str(int(port)) == port and port_min <= int(port) <= PORT_MAX):
        raise AddressFault(f"{place} has port {port[:80]!r}: give {port_min} to {PORT_MAX}")
    return host, int(port)


def listen_address(address: str, place: str = "address") -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port of where to listen; port 0 is any that is free.

    Raises AddressFault.
    """
    host, port = split_host_port(address, place, port_min=0)
    return host.removeprefix("[").removesuffix("]"), port


def open_socket(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)


def why_not(address: str) -> str:
    """Why nothing can listen on HOST:PORT, which gRPC does not say."""
    try:
        open_socket(*listen_address(address), backlog=1).close()
    except (OSError, AddressFault) as error:
        return told(error)
    return "address in use a moment ago"


def told(error: OSError | AddressFault) -> str:
    """The fault alone, without number, file or address."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno is not None and error.errno > 0:  # below: what the resolver says
        return os.strerror(error.errno)
    return error.strerror or str(error)
