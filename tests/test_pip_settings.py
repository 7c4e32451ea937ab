"""uv gets pip's settings for a network: the index is on loopback, and only pip knows its certificate authority."""

import datetime as dt
import functools
import http.server
import ipaddress
import os
import re
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.scripts import load_script, make_wheel

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "requirements" / "pip_settings.py"
UV = Path(sys.executable).with_name("uv")

pip_settings = load_script(SCRIPT)


def certificate(name, key, issuer, issuer_key, extension):
    """A certificate that is valid for a day."""
    now = dt.datetime.now(dt.UTC)
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, issuer)
    ]
    builder = x509.CertificateBuilder(
        issuer_name=names[1],
        subject_name=names[0],
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(hours=1),
        not_valid_after=now + dt.timedelta(days=1),
    )
    made = builder.add_extension(extension, critical=True).sign(issuer_key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A mirror with one package, and the certificate authority of its company: (URL, PEM file)."""
    folder = tmp_path_factory.mktemp("network")
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    is_authority = x509.BasicConstraints(ca=True, path_length=None)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (folder / "authority.pem").write_bytes(
        certificate("authority", authority, "authority", authority, is_authority)
    )
    private = server.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(
        private + certificate("server", server, "authority", authority, loopback)
    )

    # The folder is the index. It has a page of links for each package.
    package = folder / "mirror" / "simple" / "tinything"
    package.mkdir(parents=True)
    make_wheel(package, "tinything", "1.0")
    (package / "index.html").write_text(
        '<a href="tinything-1.0-py3-none-any.whl">tinything-1.0-py3-none-any.whl</a>'
    )

    handler = functools.partial(Quiet, directory=folder / "mirror")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as mirror:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        # Each connection makes its handshake in its own thread, so a silent client does not delay other clients.
        mirror.socket = context.wrap_socket(
            mirror.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=mirror.serve_forever, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{mirror.server_port}/simple", folder / "authority.pem"
        mirror.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def install(tmp_path):
    """Installs the package into a folder as `make` does, with these variables, and without the settings of this
    machine.
    """

    def install(*runner, **variables):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "UV_INDEX": "",
            "UV_FIND_LINKS": "",
            "UV_CACHE_DIR": str(tmp_path / "cache"),
            "UV_HTTP_RETRIES": "0",
            "NO_PROXY": "*",
        }
        command = [UV, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
        return subprocess.run(
            [*runner, *command, "--target", tmp_path / "installed", "tinything"],
            env=environment | {name: str(value) for name, value in variables.items()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return install


def is_installed(tmp_path):
    return (tmp_path / "installed" / "tinything-1.0.dist-info").is_dir()


def test_uv_gets_the_certificates_and_the_mirror_of_pips_configuration(install, network, tmp_path):
    url, authority = network
    conf = tmp_path / "pip.conf"
    conf.write_text(f"[global]\ncert = {authority}\n[install]\nindex-url = {url}\n")

    # uv alone does not read pip's configuration, and does not trust the mirror.
    alone = install(PIP_CONFIG_FILE=conf, UV_DEFAULT_INDEX=url)
    assert "invalid peer certificate: UnknownIssuer" in alone.stderr
    assert not is_installed(tmp_path)

    done = install(sys.executable, SCRIPT, PIP_CONFIG_FILE=conf)
    assert (done.returncode, done.stderr) == (0, "")
    assert is_installed(tmp_path)


def test_uv_gets_the_variables_of_pip(install, network, tmp_path):
    url, authority = network
    done = install(sys.executable, SCRIPT, PIP_INDEX_URL=url, PIP_CERT=authority)
    assert (done.returncode, done.stderr) == (0, "")
    assert is_installed(tmp_path)


def test_a_failed_download_names_the_settings_to_try(install, network):
    url, _ = network
    url = url.replace("https://", "https://me:secret@")
    failed = install(sys.executable, SCRIPT, PIP_INDEX_URL=url, PIP_CONFIG_FILE=os.devnull)
    assert failed.returncode != 0
    assert "invalid peer certificate: UnknownIssuer" in failed.stderr
    hint = failed.stderr[failed.stderr.index("A download failed.") :]
    assert "PIP_CERT=FILE" in hint
    assert f"UV_DEFAULT_INDEX={url.replace('me:secret', '***')}" in hint
    assert "secret" not in hint


def test_a_fault_of_another_kind_gets_no_hint():
    command = [sys.executable, SCRIPT, sys.executable, "-c", "import sys; sys.exit('a fault')"]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (failed.returncode, failed.stderr) == (1, "a fault\n")


def test_every_setting_of_pip_has_its_variable(tmp_path):
    pip = {
        "index-url": "https://mirror/simple",
        "extra-index-url": "https://a/simple\nhttps://b/simple",
        "find-links": "/wheels\nhttps://c/wheels",
        "trusted-host": "a b:8080",
        "timeout": "60",
        "proxy": "http://proxy:3128",
        "cert": str(tmp_path),
        "client-cert": "me.pem",
    }
    assert pip_settings.uv_variables(pip, {}) == {
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,https://c/wheels",
        "UV_INSECURE_HOST": "a b:8080",
        "UV_HTTP_TIMEOUT": "60",
        "HTTP_PROXY": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
        "SSL_CERT_DIR": str(tmp_path),
        "SSL_CLIENT_CERT": "me.pem",
    }


def test_a_variable_of_uv_stays_and_pips_certificates_and_proxy_win():
    pip = {"index-url": "https://mirror/simple", "proxy": "proxy:3128", "cert": "pip.pem"}
    environment = {"UV_DEFAULT_INDEX": "", "HTTPS_PROXY": "other:1", "SSL_CERT_FILE": "other.pem"}
    assert pip_settings.uv_variables(pip, environment) == {
        "HTTP_PROXY": "proxy:3128",
        "HTTPS_PROXY": "proxy:3128",
        "SSL_CERT_FILE": "pip.pem",
    }


def test_an_index_that_pip_does_not_read_is_not_read_by_uv():
    found = pip_settings.uv_variables({"no-index": "yes", "extra-index-url": "https://a"}, {})
    folder = Path(found["UV_DEFAULT_INDEX"].removeprefix("file://"))
    assert not [path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert "UV_INDEX" not in found


def test_certificates_come_from_pip_then_requests_then_the_system(monkeypatch, tmp_path):
    bundle = {"REQUESTS_CA_BUNDLE": "requests.pem"}
    of = pip_settings.uv_variables
    assert of({"cert": "pip.pem"}, bundle) == {"SSL_CERT_FILE": "pip.pem"}
    assert of({}, bundle) == {"SSL_CERT_FILE": "requests.pem"}

    monkeypatch.setattr(pip_settings, "SYSTEM_CERTIFICATES", (str(tmp_path),))
    assert of({}, {}) == {"UV_SYSTEM_CERTS": "true"}
    named = bundle | {"SSL_CERT_FILE": "mine.pem"}
    assert of({}, named) == {"UV_SYSTEM_CERTS": "true"}  # uv reads SSL_CERT_FILE itself
    monkeypatch.setattr(pip_settings, "SYSTEM_CERTIFICATES", (str(tmp_path / "none"),))
    assert of({}, {}) == {}  # if the system has no certificates, uv must use its own certificates


def test_make_downloads_nothing_without_the_settings():
    recipes = re.findall(r"^\t.*", (ROOT / "Makefile").read_text(), re.MULTILINE)
    direct = [line for line in recipes if ".venv/bin/uv" in line or "-m pip" in line]
    assert direct == ["\t$(PIP_SETTINGS) .venv/bin/python -m pip install --quiet uv"]
