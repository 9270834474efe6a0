"""The servers that are measured: Shoal on each backend, nginx, and the two floors.

Each `start_*` returns a running process.Server with its port set, and raises NotAvailable when
this machine lacks what the subject needs.
"""

import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from .process import NotAvailable, Server, usable_cpus
from .report import BenchError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent / "floor"
BUILD = ROOT / "build" / "bench"
LISTENING = r"listening on http://127\.0\.0\.1:(\d+)"

SHOAL = ("shoal-epoll", "shoal-io_uring")
FLOORS = ("floor-epoll", "floor-io_uring")
ALL = SHOAL + ("nginx",) + FLOORS

FLOOR_FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-O3", "-march=native", "-Wall", "-Wextra"]


def add_arguments(parser):
    parser.add_argument("--httpd", metavar="PATH", type=Path,
                        default=ROOT / "build" / "release" / "bin" / "shoal-httpd",
                        help="the shoal-httpd to measure (default: build/release/bin/shoal-httpd)")


def descriptor_limit():
    """Raises the limit on descriptors as far as it goes, and returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(subject, args, cpus=None, cores=1, connections=2048):
    """Starts a subject by name, with `cores` threads or workers, on these CPUs."""
    if subject in SHOAL:
        return start_shoal(subject, args.httpd, cpus, cores, connections)
    if subject in FLOORS:
        return start_floor(subject, cpus)
    if subject == "nginx":
        return start_nginx(cpus, cores, connections)
    raise BenchError(f"no subject '{subject}'; there are {', '.join(ALL)}")


def shoal_command(subject, httpd, cores, connections, port=0):
    if not os.access(httpd, os.X_OK):
        raise NotAvailable(f"{subject}: no {httpd}; build it first: "
                           "cmake --preset release && cmake --build --preset release")
    command = [str(httpd), "--smp", str(cores), "--io-backend", subject.split("-", 1)[1],
               "--port", str(port), "--max-connections", str(connections),
               "--idle-timeout", "3600", "--log-level", "info"]
    return command


def start_shoal(subject, httpd, cpus, cores, connections):
    command = shoal_command(subject, httpd, cores, connections)
    if cpus is not None:
        command += ["--cpuset", ",".join(map(str, cpus))]
    server = Server(subject, command, cpus)
    server.port = int(server.wait_for_log(LISTENING)[1])
    backend = subject.split("-", 1)[1]
    ran = server.wait_for_log(r"io backend: (\w+)")[1]
    if ran != backend:
        raise BenchError(f"{subject}: runs on {ran}, and not on {backend}")
    return server


def nginx_command(directory, cores, connections, port):
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise NotAvailable("nginx: not installed (apt-get install nginx-light)")
    values = {
        "USER": "user root;" if os.geteuid() == 0 else "",
        "WORKERS": str(cores),
        "DESCRIPTORS": str(descriptor_limit()),
        "CONNECTIONS": str(connections),
        "DIR": directory,
        "PORT": str(port),
        "REUSEPORT": " reuseport" if cores > 1 else "",
    }
    text = (SOURCES / "nginx.conf.in").read_text()
    config = Path(directory) / "nginx.conf"
    config.write_text(re.sub(r"@([A-Z]+)@", lambda m: values.get(m[1], m[0]), text))
    return [program, "-p", directory, "-c", str(config), "-e", directory + "/error.log"]


def start_nginx(cpus, cores, connections):
    temp_dir = tempfile.TemporaryDirectory(prefix="shoal-bench-nginx-")
    port = free_port()
    try:
        # nginx closes idle connections once less than a sixteenth of its slots is free
        command = nginx_command(temp_dir.name, cores, connections + connections // 8 + 64, port)
        server = Server("nginx", command, cpus, temp_dir)
    except BaseException:
        temp_dir.cleanup()
        raise
    server.port = port
    return server


def start_floor(subject, cpus):
    server = Server(subject, [str(build_floor(subject))], cpus)
    server.port = int(server.wait_for_log(LISTENING)[1])
    return server


def build_floor(subject):
    """Compiles a floor when it is missing or older than its source."""
    name = subject.replace("-", "_")
    source, header, target = SOURCES / f"{name}.c", SOURCES / "floor.h", BUILD / name
    newest = max(source.stat().st_mtime, header.stat().st_mtime)
    if target.exists() and target.stat().st_mtime > newest:
        return target
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("no C compiler for the floor: install gcc or clang")
    BUILD.mkdir(parents=True, exist_ok=True)
    libraries = ["-luring"] if subject.endswith("io_uring") else []
    result = subprocess.run([compiler, *FLOOR_FLAGS, str(source), "-o", str(target), *libraries],
                            capture_output=True, text=True)
    if result.returncode != 0:
        first = (result.stderr.strip().splitlines() or ["no message"])[0]
        raise NotAvailable(f"{subject}: does not build: {first}")
    return target


def start_available(names, args, report, explicit, **options):
    """Starts the subjects that can be had. One that was asked for by name must be."""
    servers = []
    for name in names:
        try:
            server = start(name, args, **options)
            verify_when_up(server)
            servers.append(server)
        except NotAvailable as error:
            if explicit:
                raise
            report.note(f"left out: {error}")
    return servers


def verify_when_up(server):
    """Waits until the server accepts, then sees that it answers rightly."""
    from . import client
    client.wait_for_port(server)
    client.verify(server)


def parse_names(text, allowed, option):
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        wrong = ",".join(unknown) or text
        raise BenchError(f"{option}: '{wrong}' is not one of {', '.join(allowed)}")
    return names


def all_cpus_needed(cores):
    if len(usable_cpus()) < cores:
        raise BenchError(f"needs {cores} CPUs")
