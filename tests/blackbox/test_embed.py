"""shoal-embed: a host that keeps its main loop and its signals, with Shoal's cores beside them."""

import collections
import random
import signal
import subprocess

import harness

WORDS = ["--smp", "2", "--overprovisioned"]


def run(backend, text, *words):
    return subprocess.run(
        [harness.binary("shoal-embed"), "--io-backend", backend, *WORDS, *words],
        input=text, capture_output=True, text=True, timeout=harness.PATIENCE, check=False)


def test_every_word_is_counted_on_its_core(backend):
    words = [f"word-{random.randrange(500)}" for _ in range(20000)]
    result = run(backend, "".join(f"{word}\n" for word in words))
    assert result.returncode == 0
    assert result.stderr == ""
    seen = collections.Counter()
    for line in result.stdout.splitlines():
        word, count = line.split()
        seen[word] += 1
        assert int(count) == seen[word]  # those of one word come in order: it has one core
    assert seen == collections.Counter(words)


def test_no_input_ends_at_once(backend):
    result = run(backend, "")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_long_words_are_cut_and_empty_lines_left_out(backend):
    result = run(backend, "\n\n" + "x" * 5000 + "\n\nlast\n")
    assert result.returncode == 0
    assert sorted(result.stdout.splitlines()) == ["last 1", "x" * 63 + " 1"]


def test_wrong_options_are_the_hosts_to_tell(backend):
    result = run(backend, "", "--memory", "lots")
    assert result.returncode == 2
    assert result.stderr.startswith("shoal-embed: --memory: ")
    assert result.stderr.count("\n") == 1
    result = subprocess.run([harness.binary("shoal-embed"), "--help"], capture_output=True,
                            text=True, timeout=harness.PATIENCE, check=False)
    assert result.returncode == 0 and result.stdout.startswith("Usage: shoal-embed")


def test_signals_come_to_the_host(backend):
    for number in (signal.SIGTERM, signal.SIGINT):
        host = subprocess.Popen(
            [harness.binary("shoal-embed"), "--io-backend", backend, *WORDS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            host.stdin.write("a\nb\na\n")
            host.stdin.flush()
            lines = [host.stdout.readline() for _ in range(3)]  # it runs, and waits for more
            assert sorted(lines) == ["a 1\n", "a 2\n", "b 1\n"]
            host.send_signal(number)
            _, log = host.communicate(timeout=harness.PATIENCE)
        finally:
            host.kill()
            host.wait()
        assert host.returncode == 0
        assert log == f"shoal-embed: the host got signal {int(number)}\n"
