"""Runs a command with what pip knows about this network. `make` downloads everything through this script.

    python requirements/pip_settings.py COMMAND ...   runs the command, and helps if a download of the command fails
    python requirements/pip_settings.py               prints the settings that the command would get

Companies configure pip (pip.conf, PIP_CERT, PIP_INDEX_URL, …) for their proxy and their mirror. uv reads neither that
configuration nor the system's certificates, so this script passes both on as variables. A variable of uv (`UV_…`) that
is set stays as it is. pip's certificates and proxy win over those of the environment, as they do in pip.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SECTIONS = ("global.", "install.", ":env:.")
"""The parts of pip's configuration that `pip install` reads. A later part wins."""

SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat, Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)
"""Where systems keep their certificates. On a system without any, uv must use its own."""

PASSED_ON = (
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY", "UV_FIND_LINKS", "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT",
    "UV_SYSTEM_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "HTTP_PROXY", "HTTPS_PROXY",
)  # fmt: skip
"""The variables that this script may set."""

FAILED_DOWNLOAD = re.compile(
    r"certificate|fetch|download|connect|dns error|timed out|HTTP (status|error)|client error"
    r"|not found in the package registry|no matching distribution",
    re.IGNORECASE,
)
"""Words in the errors of uv and pip when a download failed."""

HINT = """
A download failed. Set what this network needs, as variables or with `pip config set`, and run make again:
  PIP_CERT=FILE       the certificate authority of a proxy, a PEM file (UnknownIssuer, CERTIFICATE_VERIFY_FAILED)
  PIP_INDEX_URL=URL   the mirror of the package index (Failed to fetch, 403, not found in the package registry)
  PIP_PROXY=URL       the proxy (Could not connect, dns error, timed out)
Set now:
  {settings}
More: docs/troubleshooting.md, "Installing".
"""


def pip_settings() -> dict[str, str]:
    """Returns the settings that `pip install` has. pip ignores empty ones. `default-timeout` becomes `timeout`."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    settings = {}
    for section in SECTIONS:
        for line in listed.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section) and ast.literal_eval(value):
                name = name.removeprefix(section).removeprefix("default-")
                settings[name] = ast.literal_eval(value)
    return settings


def uv_variables(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Translates the settings of pip into the variables of uv.

    Args:
        pip: The settings of pip: name → value.
        environment: The variables that are set. A variable of uv among them is not returned.
    """
    found = {
        "UV_DEFAULT_INDEX": pip.get("index-url"),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("timeout"),
        "HTTP_PROXY": pip.get("proxy"),
        "HTTPS_PROXY": pip.get("proxy"),
        "SSL_CLIENT_CERT": pip.get("client-cert"),
    }

    # pip takes the best version of all indexes, so uv must not stop at the first index that has the package.
    if extra := pip.get("extra-index-url"):
        found["UV_INDEX"] = " ".join(extra.split())
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    # uv has no variable for "no index". A folder without packages is the same.
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        found |= {"UV_DEFAULT_INDEX": Path(__file__).parent.as_uri(), "UV_INDEX": None}

    # If certificates are set, uv trusts only these. Otherwise uv trusts the certificates of the system, as pip does.
    certificates = pip.get("cert")
    if not (certificates or environment.get("SSL_CERT_FILE") or environment.get("SSL_CERT_DIR")):
        certificates = environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE")
    if certificates:
        found["SSL_CERT_DIR" if Path(certificates).is_dir() else "SSL_CERT_FILE"] = certificates
    elif any(Path(path).exists() for path in SYSTEM_CERTIFICATES):
        found["UV_SYSTEM_CERTS"] = "true"

    stay = {name for name in environment if name.startswith("UV_")}
    return {name: value for name, value in found.items() if value and name not in stay}


def shown(environment: Mapping[str, str]) -> list[str]:
    """Returns `NAME=value` for each variable that concerns uv, without the passwords of URLs."""
    lines = [f"{name}={environment[name]}" for name in PASSED_ON if environment.get(name)]
    return [re.sub(r"//[^/@\s]+@", "//***@", line) for line in lines]


def main() -> int:
    """Runs the command of the arguments. Returns its exit status."""
    environment = os.environ | uv_variables(pip_settings(), os.environ)
    if not sys.argv[1:]:
        print("\n".join(shown(environment)))
        return 0

    # The errors are shown while the command runs, and kept to see whether a download failed.
    errors = ""
    with subprocess.Popen(sys.argv[1:], env=environment, stderr=subprocess.PIPE, text=True) as ran:
        for line in ran.stderr or ():
            sys.stderr.write(line)
            errors += line
    if ran.returncode and FAILED_DOWNLOAD.search(errors):
        sys.stderr.write(HINT.format(settings="\n  ".join(shown(environment)) or "nothing"))
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
