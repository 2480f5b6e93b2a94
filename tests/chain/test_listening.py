"""HOST:PORT as operators write it."""

import pytest

from chain.listening import AddressFault, listen_address, open_socket, split_host_port, why_not


def test_any_free_port_may_be_listened_on_but_not_dialled() -> None:
    assert listen_address("[::1]:0") == ("::1", 0)
    assert listen_address("localhost:65535") == ("localhost", 65_535)
    with pytest.raises(AddressFault, match="peer has port '0': give 1 to 65535"):
        split_host_port("localhost:0", "peer")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "localhost",
        ":80",
        "h:",
        "h :80",
        "h:٣",
        "h:007",
        "h:65536",
        "h:-1",
        "h:" + "9" * 5000,
    ],
)
def test_what_is_no_host_and_port_is_told_with_what_to_give(text: str) -> None:
    with pytest.raises(AddressFault, match="give") as caught:
        listen_address(text)
    assert len(str(caught.value)) < 200


def test_a_port_that_another_has_is_told_apart_from_a_host_that_is_not_here() -> None:
    with open_socket("127.0.0.1", 0, backlog=1) as taken:
        port = taken.getsockname()[1]
        assert why_not(f"127.0.0.1:{port}") == "Address already in use"
    assert why_not("192.0.2.1:0") == "Cannot assign requested address"
    assert "give HOST:PORT" in why_not("localhost")
