"""Throwaway servers: PostgreSQL, pgbouncer, the floor relays, the simulator of Entra, the gateway."""

import grp
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
USER = "bench"
DATABASE = "bench"
# Who the simulator's default state knows: a workload in the group `billing-agents`, and the gateway's own app.
WORKLOAD = ("b1b1b1b1-0000-4000-8000-00000000b001", "workload-secret")
GRAPH_SECRET = "gateway-secret"
GROUP = "e7e7e7e7-0000-4000-8000-00000000e001"
CONNECTIONS_MAX = 1200


@dataclass
class Subject:
    """What a client connects to."""

    name: str
    port: int
    pid: int | None = None
    admin: int | None = None
    password: str = ""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, ready, child=None, log=None):
    deadline = time.monotonic() + PATIENCE
    while True:
        if ready():
            return
        ended = child is not None and child.poll() is not None
        if ended or time.monotonic() > deadline:
            raise SystemExit(f"{what} did not start\n{log.read_text() if log else ''}")
        time.sleep(0.05)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Servers:
    """Starts servers in a directory of their own, and ends all of them."""

    def __init__(self, directory, binaries):
        self.directory = directory
        self.binaries = binaries
        self.children = []
        self.postgres_data = None
        # PostgreSQL and pgbouncer refuse to run as root; Debian's packages bring a user.
        self.demoted = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if os.geteuid() != 0:
            self.demoted = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
        if self.postgres_data:
            run(self.demoted + [self.tool("pg_ctl"), "-D", self.postgres_data, "-m", "immediate", "-w", "stop"])

    def stop(self, subject):
        """Ends one of them before the others."""
        for child in [child for child in self.children if child.pid == subject.pid]:
            self.children.remove(child)
            child.terminate()
            child.wait(PATIENCE)

    def own_directory(self, name):
        directory = self.directory / name
        directory.mkdir()
        self.give(directory)
        return directory

    def give(self, path):
        if self.demoted:
            os.chown(path, pwd.getpwnam("postgres").pw_uid, grp.getgrnam("postgres").gr_gid)

    def spawn(self, name, command, environment=None, stdout=None):
        log = self.directory / f"{name}.log"
        with open(log, "ab") as errors:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout or errors,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )
        self.children.append(child)
        return child, log

    @staticmethod
    def tool(name):
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        if not versions:
            raise SystemExit("no PostgreSQL server: apt-get install postgresql")
        return versions[-1] / name

    def certificate(self):
        """A certificate for 127.0.0.1 of this run's own, and its key."""
        directory = self.own_directory("tls")
        certificate, key = directory / "tls.crt", directory / "tls.key"
        run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
            + ["-keyout", key, "-out", certificate]
        )
        key.chmod(0o600)
        for path in (certificate, key):
            self.give(path)
        return certificate, key

    def postgres(self, certificate, key):
        """A server that is no bottleneck of its own: it syncs nothing."""
        directory = self.own_directory("postgres")
        data = directory / "data"
        run(
            self.demoted
            + [self.tool("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
            + ["--locale=C.UTF-8", "--no-sync"]
        )
        port = free_port()
        settings = f"""
            listen_addresses = '127.0.0.1'
            port = {port}
            unix_socket_directories = ''
            max_connections = {CONNECTIONS_MAX}
            shared_buffers = '1GB'
            max_wal_size = '16GB'
            checkpoint_timeout = '1d'
            fsync = off
            full_page_writes = off
            autovacuum = off
            ssl = on
            ssl_cert_file = '{certificate}'
            ssl_key_file = '{key}'
        """
        with open(data / "postgresql.conf", "a") as file:
            file.write(settings)
        run(self.demoted + [self.tool("pg_ctl"), "-D", data, "-l", directory / "log", "-w", "start"])
        self.postgres_data = data
        psql(port, "postgres", f"CREATE ROLE {USER} LOGIN", user="postgres")
        psql(port, "postgres", f"CREATE DATABASE {DATABASE} OWNER {USER}", user="postgres")
        return Subject("direct", port)

    def pgbouncer(self, name, target, certificate, key):
        directory = self.own_directory(name)
        port = free_port()
        users, settings = directory / "users", directory / "pgbouncer.ini"
        users.write_text(f'"{USER}" ""\n')
        settings.write_text(
            f"""[databases]
{DATABASE} = host=127.0.0.1 port={target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = session
max_client_conn = {CONNECTIONS_MAX}
default_pool_size = {CONNECTIONS_MAX}
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = allow
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
"""
        )
        child, log = self.spawn(name, self.demoted + ["pgbouncer", settings])
        wait_for(name, lambda: listens(port), child, log)
        return Subject("pgbouncer", port, child.pid)

    def floor(self, name, mode, target):
        command = [self.binaries / "floor-relay", mode, "--target", f"127.0.0.1:{target}"]
        if mode != "pass":
            command += ["--record", self.directory / f"{name}.record"]
        child, _ = self.spawn(name, command, stdout=subprocess.PIPE)
        port = int(child.stdout.readline().rsplit(b":", 1)[1])
        return Subject(name, port, child.pid)

    def entra(self):
        child, _ = self.spawn("entra", [self.binaries / "entra-sim"], stdout=subprocess.PIPE)
        return json.loads(child.stdout.readline())

    def gateway(self, name, entra, target, certificate, key, sync, sink=False):
        directory = self.directory / name
        directory.mkdir()
        port, admin = free_port(), free_port()
        config = f"""
[gateway]
node = "{name}"
data_dir = "{directory / 'data'}"
drain = "2s"
tls = {{ certificate = "{certificate}", private_key = "{key}" }}
[ledger]
sync = "{sync}"
[listen]
postgres = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
[identity.entra]
tenants = ["{entra['tenant']}"]
audiences = ["{entra['audience']}"]
authority = "{entra['authority']}"
groups = {{ billing-agents = "{GROUP}" }}
graph = {{ client_id = "{entra['audience']}", client_secret = {{ env = "GRAPH_SECRET" }}, endpoint = "{entra['graph']}" }}
[[connection]]
name = "{DATABASE}"
type = "postgres"
target = "postgres://{USER}@127.0.0.1:{target}/{DATABASE}"
access = ["group:billing-agents"]
"""
        if sink:
            config += f'[sink.events]\ntype = "file"\npath = "{directory / "events.jsonl"}"\n'
        path = directory / "verbatim.toml"
        path.write_text(config)
        command = [self.binaries / "verbatim", "serve", "--config", path]
        child, log = self.spawn(name, command, {"GRAPH_SECRET": GRAPH_SECRET})
        wait_for(name, lambda: ready(admin), child, log)
        return Subject(name, port, child.pid, admin)

    def verify(self, name):
        """`verbatim verify` of a gateway's ledger: its exit status and its last line."""
        command = [self.binaries / "verbatim", "verify", "--config", self.directory / name / "verbatim.toml"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "GRAPH_SECRET": GRAPH_SECRET}
        )
        said = (done.stdout + done.stderr).strip().splitlines()
        return done.returncode, said[-1] if said else ""


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def psql(port, database, sql, user=USER):
    address = ["-h", "127.0.0.1", "-p", str(port), "-U", user, "-d", database]
    return run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *address, "-c", sql])


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def ready(admin):
    try:
        get(admin, "/readyz")
        return True
    except OSError:
        return False


def metrics(admin):
    """The gateway's own figures, by name, summed over their labels."""
    values = {}
    for line in get(admin, "/metrics").splitlines():
        if line and not line.startswith("#"):
            sample, _, value = line.rpartition(" ")
            name = sample.partition("{")[0]
            values[name] = values.get(name, 0.0) + float(value)
    return values


def token(entra):
    """A fresh access token for the workload, as an agent would get it."""
    form = {
        "grant_type": "client_credentials",
        "client_id": WORKLOAD[0],
        "client_secret": WORKLOAD[1],
        "scope": f"api://{entra['audience']}/.default",
    }
    url = f"{entra['authority']}/{entra['tenant']}/oauth2/v2.0/token"
    body = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, body, timeout=PATIENCE) as answer:
        return json.load(answer)["access_token"]


def install():
    """Installs what is missing, on Debian and Ubuntu."""
    there = {
        "postgresql": any(Path("/usr/lib/postgresql").glob("*/bin/postgres")),
        "postgresql-client": shutil.which("psql"),
        "postgresql-contrib": shutil.which("pgbench"),
        "pgbouncer": shutil.which("pgbouncer") or Path("/usr/sbin/pgbouncer").exists(),
        "openssl": shutil.which("openssl"),
    }
    missing = [package for package, found in there.items() if not found]
    if missing:
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
        run(sudo + environment + ["apt-get", "update", "-q"])
        run(sudo + environment + ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])
    os.environ["PATH"] += ":/usr/sbin"


def binaries(profile):
    """Where cargo leaves what it builds."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return (ROOT / target / profile).resolve()


def build(profile, gateway):
    """Builds the testkit's programs, and the gateway where it is measured."""
    command = ["cargo", "build", "--locked", "--profile", profile]
    command += ["--package", "verbatim-testkit", "--bin", "entra-sim", "--bin", "floor-relay"]
    if gateway:
        command += ["--package", "verbatim-gateway", "--bin", "verbatim"]
    # Cargo's own words go to the terminal: a build takes minutes.
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode != 0:
        raise SystemExit("the build failed")
