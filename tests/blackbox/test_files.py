"""/files: content types, bit-exact bodies, and that nothing outside the folder is ever served."""

import os
from urllib.parse import quote

import pytest

import harness
import wire


@pytest.mark.parametrize("name,kinds", [
    ("page.html", {"text/html"}),
    ("plain.txt", {"text/plain"}),
    ("style.css", {"text/css"}),
    ("code.js", {"text/javascript", "application/javascript"}),
    ("data.json", {"application/json"}),
    ("picture.png", {"image/png"}),
    ("drawing.svg", {"image/svg+xml"}),
    ("unknown.zzz", {"application/octet-stream"}),
    ("noextension", {"application/octet-stream"}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_file_type_by_extension(httpd, site, name, kinds):
    response = httpd.get("/files/" + name)
    assert response.status == 200
    assert response.body == site.files[name]
    assert response.get("content-type").split(";")[0] in kinds


@pytest.mark.parametrize("name", ["with space.txt", "\u20ac.txt", "sub/inner.txt", "empty.txt"])
def test_file_name_percent_encoded_served(httpd, site, name):
    response = httpd.get("/files/" + quote(name))
    assert response.status == 200
    assert response.body == site.files[name]
    assert response.get("content-length") == str(len(site.files[name]))


def test_file_query_ignored(httpd, site):
    assert httpd.get("/files/plain.txt?v=1").body == site.files["plain.txt"]


def test_file_20_mib_bit_exact(httpd, site):
    with httpd.conn() as conn:
        for _ in range(2):
            response = conn.ask("/files/big.bin")
            assert response.status == 200
            assert response.body == site.files["big.bin"]
        assert conn.ask("/plaintext").status == 200


def test_file_many_readers_at_once_bit_exact(httpd, site):
    conns = [httpd.conn() for _ in range(8)]
    for conn in conns:
        conn.send(wire.request("/files/big.bin"))
    for conn in conns:
        assert conn.read().body == site.files["big.bin"]


@pytest.mark.parametrize("name", ["big.bin", "plain.txt", "empty.txt"])
def test_file_head_length_only(httpd, site, name):
    with httpd.conn() as conn:
        head = conn.ask("/files/" + name, "HEAD")
        assert head.status == 200
        assert head.get("content-length") == str(len(site.files[name]))
        assert conn.ask("/plaintext").body == b"Hello, World!"


@pytest.mark.parametrize("name", ["nothing.txt", "sub/nothing", "plain.txt/x",
                                  "nothing/plain.txt", "dangling", "x" * 250])
def test_file_missing_404(httpd, name):
    with httpd.conn() as conn:
        assert conn.ask("/files/" + name).status == 404
        assert conn.ask("/files/" + name, "HEAD").status == 404
        assert conn.ask("/plaintext").status == 200


@pytest.mark.parametrize("name", ["", "sub", "sub/", ".", "./", "plain.txt/"])
def test_file_folder_not_served(httpd, name):
    assert httpd.get("/files/" + name).status in (301, 403, 404)


@pytest.mark.parametrize("name", ["fifo", "loop"])
def test_file_odd_kind_refused_without_hanging(httpd, name):
    assert httpd.get("/files/" + name).status in (403, 404)


@pytest.mark.parametrize("target", [
    "/files/../secret.txt",
    "/files/./../secret.txt",
    "/files/sub/../../secret.txt",
    "/files/%2e%2e/secret.txt",
    "/files/%2E%2E/secret.txt",
    "/files/.%2e/secret.txt",
    "/files/..%2fsecret.txt",
    "/files/%2e%2e%2fsecret.txt",
    "/files/sub%2f..%2f..%2fsecret.txt",
    "/files/..%5csecret.txt",
    "/files/%252e%252e/secret.txt",
    "/files/..;/secret.txt",
    "/files/..%00/secret.txt",
    "/files/../root/../secret.txt",
    "/files/link-out.txt",
    "/files/link-absolute.txt",
    "/files/link-folder/secret.txt",
    "/files//OUTER/secret.txt",
    "/files/%2fOUTER/secret.txt",
    "/files//OUTER%2fsecret.txt",
    "/files/..//OUTER/secret.txt",
    "/files//etc/passwd",
    "/files/%2fetc%2fpasswd",
    "/files/../../../../../../../../etc/passwd",
    "/files/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
    "/files/%c0%ae%c0%ae/secret.txt",
    "/plaintext/../files/../secret.txt",
])
def test_file_outside_the_folder_never_served(httpd, site, target):
    target = target.replace("/OUTER", site.outer)
    for method in ("GET", "HEAD"):
        with httpd.conn() as conn:
            conn.send(wire.request(target, method))
            response = conn.read(method)
            assert response.status in (400, 403, 404), response
            assert b"TOP-SECRET" not in response.body and b"root:" not in response.body


def test_file_name_with_nul_refused(httpd):
    for target in ("/files/plain.txt%00", "/files/plain.txt%00.html", "/files/%00"):
        assert httpd.get(target).status in (400, 404)


def test_file_unreadable_403(start, folder):
    """Root reads everything, so the server runs as nobody where the tests run as root."""
    path = os.path.join(folder, "private.txt")
    with open(path, "wb") as file:
        file.write(b"private")
    os.chmod(path, 0o000)
    with open(os.path.join(folder, "public.txt"), "wb") as file:
        file.write(b"public")
    wrapper = harness.as_nobody()
    server = start("--root", folder, wrapper=wrapper)
    assert server.get("/files/public.txt").body == b"public"
    assert server.get("/files/private.txt").status == 403


def test_file_changed_served_anew(start, folder):
    path = os.path.join(folder, "changing.txt")
    server = start("--root", folder)
    with server.conn() as conn:
        assert conn.ask("/files/changing.txt").status == 404
        for index in range(5):
            data = b"version %d\n" % index * (index + 1)
            with open(path, "wb") as file:
                file.write(data)
            assert conn.ask("/files/changing.txt").body == data
        os.unlink(path)
        assert conn.ask("/files/changing.txt").status == 404


def test_file_truncated_while_sent_connection_closed(start, folder):
    """What was promised can no longer be sent: the answer ends short, and nothing crashes."""
    path = os.path.join(folder, "shrinking.bin")
    with open(path, "wb") as file:
        file.truncate(256 << 20)
    server = start("--root", folder)
    with server.conn(receive_buffer=65536) as conn:
        conn.send(wire.request("/files/shrinking.bin"))
        while len(conn.pending) < 100000:
            assert conn.more()
        os.truncate(path, 0)
        assert len(conn.drain()) < 256 << 20
    assert server.get("/plaintext").status == 200


def test_file_reader_leaves_midway_descriptor_closed(start, site):
    server = start("--root", site.root)
    for _ in range(20):
        with server.conn() as conn:
            conn.send(wire.request("/files/big.bin"))
            while len(conn.pending) < 200000:
                assert conn.more()
            conn.reset()
    server.check()
    assert not any("big.bin" in name for name in server.open_files())
