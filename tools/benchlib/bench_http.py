"""HTTP: server CPU per request answered, against a floor that does nothing but answer.

1. The server has one CPU, wrk another; all subjects are up all the time and idle while another
   one is measured. (An idle subject that used CPU would show in `footprint`.)
2. Each round runs every subject once, in an order that turns by one from round to round. A ratio
   is taken within its round, then the median over the rounds: a machine that drifts or is shared
   disturbs a whole round, not a ratio.
3. CPU per request is the server's, over everything wrk did, connecting included.
"""

import statistics

from . import client, process, subjects, wrk
from .report import BenchError

SUMMARY = "CPU per request, rps and p99 against nginx and a do-nothing floor"

# name: connections, whether pipelined by 16
CASES = {"http-64": (64, False), "http-512": (512, False), "http-pipelined": (64, True)}
LIMIT = "floor-epoll"


def add_arguments(parser):
    parser.add_argument("--seconds", type=int, default=2, metavar="N",
                        help="seconds a run (default: 2)")
    parser.add_argument("--pairs", type=int, default=9, metavar="N",
                        help="rounds, each with one run of every subject (default: 9)")
    parser.add_argument("--cases", default=",".join(CASES), metavar="A,B",
                        help="cases (default: %(default)s)")
    parser.add_argument("--subjects", default=None, metavar="A,B",
                        help=f"subjects (default: {','.join(subjects.ALL)}, what can be had)")
    parser.add_argument("--smp2", action="store_true",
                        help="only how two cores of Shoal share the load")
    subjects.add_arguments(parser)


def run(args, report):
    if args.seconds < 1 or args.pairs < 1:
        raise BenchError("--seconds and --pairs must be 1 or more")
    wrk.require()
    cases = subjects.parse_names(args.cases, list(CASES), "--cases")
    names = subjects.parse_names(args.subjects or ",".join(subjects.ALL), subjects.ALL,
                                 "--subjects")
    report.machine()
    if args.smp2:
        run_smp2(args, report, names, cases)
        return
    if args.pairs < 5:
        report.note("fewer than 5 rounds: good for a glance only")
    if LIMIT not in names:
        names.append(LIMIT)
    server_cpu, load_cpu = process.server_and_load_cpus()
    servers = subjects.start_available(names, args, report, args.subjects is not None,
                                       cpus=[server_cpu])
    if LIMIT not in [server.name for server in servers]:
        raise BenchError(f"the {LIMIT} is what all others are compared with; it must run")
    try:
        for case in cases:
            run_case(case, servers, load_cpu, args, report)
    finally:
        for server in servers:
            server.stop()


def run_case(case, servers, load_cpu, args, report):
    connections, pipeline = CASES[case]
    report.heading(f"{case}: {connections} connections" + (", 16 pipelined" * pipeline) +
                   f", medians of {args.pairs} rounds of {args.seconds} s")
    cpu_us, loads = {}, {}
    for number in range(args.pairs):
        turn = number % len(servers)
        for server in servers[turn:] + servers[:turn]:
            before = server.cpu_ns()
            load = wrk.run(server.name, server.port, connections, pipeline, args.seconds,
                           [load_cpu])
            used_us = (server.cpu_ns() - before) / 1000
            server.check_running()
            cpu_us.setdefault(server.name, []).append(used_us / load.requests)
            loads.setdefault(server.name, []).append(load)
    for server in servers:
        ratios = [own / floor for own, floor in zip(cpu_us[server.name], cpu_us[LIMIT])]
        rps = statistics.median(load.rps for load in loads[server.name])
        p99_us = statistics.median(load.p99_us for load in loads[server.name])
        report.row(case, server.name, statistics.median(cpu_us[server.name]), "us",
                   statistics.median(ratios),
                   f"{rps:9.0f} rps   p99 {p99_us:7.0f} us   "
                   f"ratios {min(ratios):.2f}-{max(ratios):.2f}",
                   rps=rps, p99_us=p99_us, ratio_min=min(ratios), ratio_max=max(ratios))


def run_smp2(args, report, names, cases):
    """Two cores and the load share the CPUs: nothing here says how fast, only how even."""
    shoal = [name for name in names if name in subjects.SHOAL]
    if not shoal:
        raise BenchError(f"--smp2 needs one of {', '.join(subjects.SHOAL)} in --subjects")
    subjects.all_cpus_needed(2)
    servers = subjects.start_available(shoal, args, report, args.subjects is not None, cores=2)
    try:
        for case in cases:
            connections, pipeline = CASES[case]
            report.heading(f"{case} with --smp 2: requests for each core")
            for server in servers:
                before = requests_by_core(server)
                load = wrk.run(server.name, server.port, connections, pipeline, args.seconds,
                               None)
                after = requests_by_core(server)
                served = {core: after[core] - before[core] for core in after}
                total = sum(served.values())
                for core, requests in sorted(served.items()):
                    report.row(f"{case}-core-{core}", server.name, 100 * requests / total,
                               "percent", None, f"{requests} requests, {load.rps:.0f} rps in all",
                               requests=requests, rps=load.rps)
    finally:
        for server in servers:
            server.stop()


def requests_by_core(server):
    cores = client.get_json(server.port, "/cores")["cores"]
    return {core["core"]: core["requests"] for core in cores}
