#!/usr/bin/env python3
"""What clients and resolvers make of the order of an answer: docs/clients.md has what this prints.

Run as root: `docs/experiments/clients/run.py`, after `cargo build` and `make testbed` (for CoreDNS). It makes a network namespace and a
mount namespace of its own, in which it asks a Signpost on a loopback address, and ends what it has started. What is missing of
unbound, dnsmasq (dnsmasq-base), musl-gcc (musl-tools), gcc, go, dig (bind9-dnsutils) is named and left out."""

import collections
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
SIGNPOST = os.path.join(ROOT, "target/debug/signpost")
COREDNS = os.path.join(ROOT, "target/testbed/coredns")
ASKED = 200
OWN = "10.0.0.1"
ALL = {OWN, "104.197.2.1", "104.197.3.1"}

CONFIG = """
zones:
  - {name: ordered.test, file: zone, ttl: 5}
  - {name: nearest.test, file: zone, ttl: 5, internalMode: nearest}
clusters:
  - {name: here, manifests: here, region: r1}
  - {name: near, manifests: near, region: r1}
  - {name: far, manifests: far, region: r2}
listeners:
  - {addresses: ["127.0.0.1:53"], view: {internal: here}}
admin: off
"""
ZONE = "$TTL 60\n@ SOA ns1 hostmaster 1 7200 900 1209600 300\n@ NS ns1\nns1 A 127.0.0.1\n"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{type: LoadBalancer, clusterIP: {}, ports: [{{port: 80}}]}}
status: {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}
"""


def inside():
    """In namespaces of its own: with nothing but a loopback interface, and an /etc/resolv.conf that nobody else sees."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as started:
        write(directory, "signpost.yaml", CONFIG)
        write(directory, "zone", ZONE)
        for name, own, ingress in [("here", OWN, "104.197.1.1"), ("near", "10.0.0.2", "104.197.2.1"), ("far", "10.0.0.3", "104.197.3.1")]:
            os.mkdir(os.path.join(directory, name))
            write(directory, name + "/web.yaml", SERVICE.format(own, ingress))
        write(directory, "resolv.conf", "nameserver 127.0.0.1\n")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["mount", "--bind", os.path.join(directory, "resolv.conf"), "/etc/resolv.conf"], check=True)
        start(started, directory, "127.0.0.1", [SIGNPOST, "serve", "--config", os.path.join(directory, "signpost.yaml")])

        print(f"| who asks | mode | own cluster first, of {ASKED} | sets that were whole |")
        print("|---|---|---:|---:|")
        report("dig, at Signpost itself", lambda name: dig("127.0.0.1", name))
        coredns(started, directory)
        unbound(started, directory)
        dnsmasq(started, directory)
        programs(directory, "")
        # RFC 6724 section 6 rule 9: where the client shares a network with an address, that may come first.
        for words in ["link add far0 type veth peer name far1", "address add 104.197.3.9/24 dev far0", "link set far1 up", "link set far0 up", "route add default dev far0"]:
            subprocess.run(["ip"] + words.split(), check=True)
        programs(directory, ", with an address in the last cluster's network")


def write(directory, name, text):
    with open(os.path.join(directory, name), "w") as file:
        file.write(text)


def start(started, directory, address, words):
    """Starts a server and waits until it answers."""
    log = open(os.path.join(directory, os.path.basename(words[0]) + ".log"), "a")
    process = subprocess.Popen(words, cwd=directory, stdout=log, stderr=log)
    started.callback(lambda: (process.terminate(), process.wait()))
    deadline = time.monotonic() + 20
    while not dig_once(address, "web.shop.ordered.test"):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{words[0]} does not answer; see\n{open(log.name).read()}")
        time.sleep(0.1)


def dig_once(address, name):
    words = ["dig", "+short", "+tries=1", "+time=2", f"@{address}", name, "A"]
    output = subprocess.run(words, capture_output=True, text=True).stdout.split()
    return [word for word in output if word in ALL]


def dig(address, name):
    return [dig_once(address, name) for _ in range(ASKED)]


def report(who, ask):
    for mode in ["ordered", "nearest"]:
        answers = ask(f"web.shop.{mode}.test")
        first = collections.Counter(answer[0] for answer in answers if answer)
        whole = ALL if mode == "ordered" else {OWN}
        kept = sum(set(answer) == whole for answer in answers)
        print(f"| {who} | {mode} | {first[OWN]} | {kept} |", flush=True)


def coredns(started, directory):
    if not os.path.exists(COREDNS):
        return missing("CoreDNS: make testbed")
    plugins = {
        "127.0.1.1": ("forward", ""),
        "127.0.1.2": ("forward, loadbalance", "loadbalance\n"),
        "127.0.1.3": ("forward, cache", "cache 30\n"),
        "127.0.1.4": ("forward, cache, loadbalance", "cache 30\nloadbalance\n"),
    }
    for address, (what, more) in plugins.items():
        write(directory, "Corefile-" + address, f"test:53 {{\nbind {address}\n{more}forward . 127.0.0.1:53\n}}\n")
        start(started, directory, address, [COREDNS, "-conf", os.path.join(directory, "Corefile-" + address)])
        report(f"CoreDNS: {what}", lambda name: dig(address, name))


def unbound(started, directory):
    if not shutil.which("unbound"):
        return missing("unbound")
    for address, word in [("127.0.2.1", "yes"), ("127.0.2.2", "no")]:
        write(directory, "unbound-" + address, f"""server:
    interface: {address}
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    do-not-query-localhost: no
    local-zone: "test." nodefault
    domain-insecure: "test."
    module-config: "iterator"
    rrset-roundrobin: {word}
stub-zone:
    name: "ordered.test"
    stub-addr: 127.0.0.1
stub-zone:
    name: "nearest.test"
    stub-addr: 127.0.0.1
""")
        start(started, directory, address, ["unbound", "-d", "-c", os.path.join(directory, "unbound-" + address)])
        report(f"unbound: rrset-roundrobin {word}", lambda name: dig(address, name))


def dnsmasq(started, directory):
    if not shutil.which("dnsmasq"):
        return missing("dnsmasq")
    words = ["dnsmasq", "-k", "--conf-file=/dev/null", "--listen-address=127.0.3.1", "--bind-interfaces", "--no-resolv",
             "--no-hosts", "--server=127.0.0.1", "--user=root", "--pid-file="]
    start(started, directory, "127.0.3.1", words)
    report("dnsmasq", lambda name: dig("127.0.3.1", name))


def programs(directory, where):
    c = os.path.join(HERE, "getaddrinfo.c")
    go = os.path.join(HERE, "lookup.go")
    for who, tool, words in [
        ("getaddrinfo of glibc", "gcc", ["gcc", "-o", "glibc", c]),
        ("getaddrinfo of musl, static", "musl-gcc", ["musl-gcc", "-static", "-o", "musl", c]),
        ("Go's own resolver", "go", ["go", "build", "-o", "golang", go]),
    ]:
        if not shutil.which(tool):
            missing(tool)
            continue
        environment = dict(os.environ, CGO_ENABLED="0", GOFLAGS="-mod=mod", GO111MODULE="off")
        subprocess.run(words, cwd=directory, check=True, env=environment)
        program = os.path.join(directory, words[words.index("-o") + 1])
        report(who + where, lambda name: [line.split() for line in run_lines([program, name, str(ASKED)])])


def run_lines(words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.splitlines()


def missing(what):
    print(f"(without {what})", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--inside"]:
        inside()
    else:
        if os.geteuid() != 0 or not os.path.exists(SIGNPOST):
            sys.exit("run as root, after cargo build")
        sys.exit(subprocess.run(["unshare", "--net", "--mount", sys.executable, __file__, "--inside"]).returncode)
