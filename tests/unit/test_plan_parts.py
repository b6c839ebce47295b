"""What no API server accepts is refused in the plan, by name, before it reaches a shared object."""

import pytest

from fourways_api.addresses import InvalidAddress
from fourways_operator.plan import parts


@pytest.mark.parametrize(
    ("uri", "ports"),
    [
        ("https://models.example/m.onnx", {443}),
        ("http://models.example:8080/m.onnx", {8080}),
        ("oci://registry.example:5000/m:1", {5000}),
        ("s3://bucket/m.onnx", {80, 443}),
        ("pvc://claim/m.onnx", set()),
    ],
)
def test_ports_of_uris(uri: str, ports: set[int]) -> None:
    assert parts.ports_of([uri]) == ports


@pytest.mark.parametrize(
    "uri", ["https://h.example:99999/m", "https://h.example:0/m", "http://[::1/m"]
)
def test_a_uri_without_a_possible_address_is_named(uri: str) -> None:
    with pytest.raises(InvalidAddress, match="is not an address"):
        parts.ports_of([uri])


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a" * 254, "a\n"])
def test_a_name_that_no_object_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no Secret can have the name"):
        parts.check_names([name])
    with pytest.raises(ValueError, match="no Secret can have the name"):
        parts.Mounts().secrets([name])


@pytest.mark.parametrize("name", ["a", "a.b-c.d", "0" * 253])
def test_names_of_kubernetes_are_taken(name: str) -> None:
    parts.check_names([name], [f"pvc://{name}/folder"])


def test_a_claim_that_cannot_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no claim can have the name 'A_b'"):
        parts.Mounts().claims(["pvc://A_b/m.onnx"])
    with pytest.raises(ValueError, match=r"no claim can have the name '\[x'"):
        parts.Mounts().claims([], written=["pvc://[x/b"])
