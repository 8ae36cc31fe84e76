"""octoDNS against a node, with its provider for the v4 API and its one for zone files: a zone is dumped, the dump becomes another zone, a
zone file that the node exported becomes a third one, and none of them differs from what there was first."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

BASE = os.environ["CLOUDFLARE_BASE_URL"]

CONFIG = """
providers:
  ours:
    class: octodns_cloudflare.CloudflareProvider
    token: env/CLOUDFLARE_API_TOKEN
    api_url: env/CLOUDFLARE_BASE_URL
    pagerules: false
    min_ttl: 60
  files:
    class: octodns.provider.yaml.YamlProvider
    directory: ./files
    enforce_order: false
  zonefiles:
    class: octodns_bind.ZoneFileProvider
    directory: ./zonefiles
    check_origin: false
zones:
  one.test.:
    sources: [ours]
    targets: [files]
  two.test.:
    sources: [files]
    targets: [ours]
  three.test.:
    sources: [zonefiles]
    targets: [ours]
"""

# Every type that both know, and what is easily lost: long and escaped texts, wildcards, the zone itself, punycode, marks. Quotes and
# backslashes within texts are not among it: octoDNS escapes them once more with each step. Digests and parameters are as it writes them.
ZONE = r"""
$TTL 3600
@ A 192.0.2.1
@ MX 10 mx.elsewhere.test.
@ MX 20 mx2.elsewhere.test.
@ TXT "v=spf1 -all"
@ CAA 0 issue "ca.elsewhere.test; policy=ev"
www 300 A 192.0.2.2 ; the page cf_tags=team:web,cf-proxied:true
a A 192.0.2.3
a A 192.0.2.4
a AAAA 2001:db8::1
*.w CNAME target.elsewhere.test.
c CNAME target.elsewhere.test. ; cf_tags=cf-proxied:true
xn--bcher-kva TXT "a text; and 100%"
long TXT "LONG" "LONG"
_sip._tcp SRV 1 2 5060 sip.elsewhere.test.
d NS ns1.elsewhere.test.
d DS 60485 8 2 d4b7d520e7bb5f0f67674a0cceb1e3e0614b93c4f9e99b8383f6a1e4469da50a
l LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m
n NAPTR 100 10 "S" "SIP+D2U" "!^.*$!sip:a@elsewhere.test!" _sip._udp.elsewhere.test.
p PTR host.elsewhere.test.
s SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789
_443._tcp.t TLSA 3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971
h HTTPS 1 . alpn="h3,h2" ipv4hint="192.0.2.1"
v SVCB 1 svc.elsewhere.test. port="8443"
""".replace("LONG", "x" * 255)


def call(method, path, body=None, kind="application/json"):
    headers = {"Authorization": f"Bearer {os.environ['CLOUDFLARE_API_TOKEN']}", "Content-Type": kind}
    request = urllib.request.Request(BASE + path, body and body.encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as refusal:
        raise AssertionError(refusal.read().decode()) from refusal


def zone(name):
    return json.loads(call("GET", f"/zones?name={name}"))["result"][0]["id"]


def exported(name):
    """The records of a zone as its file has them, under the names that they have in the first one."""
    lines = call("GET", f"/zones/{zone(name)}/dns_records/export").replace(f"{name}.\t", "one.test.\t").splitlines()
    return sorted(line for line in lines if not line.startswith(";"))


def octodns(tool, *words):
    program = pathlib.Path(sys.executable).parent / f"octodns-{tool}"
    done = subprocess.run([program, "--config-file", "config.yaml", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def synced(name):
    said = octodns("sync", "--doit", "--force", name)
    assert "Creates=" in said, said
    again = octodns("sync", name)
    assert "No changes were planned" in again, again


def bare(lines):
    """Without what zone files of others do not carry."""
    return [line.split(" ; ")[0] for line in lines]


def main():
    os.chdir(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
    pathlib.Path("config.yaml").write_text(CONFIG)
    for directory in ("files", "zonefiles"):
        pathlib.Path(directory).mkdir()
    call("POST", "/zones", json.dumps({"name": "one.test"}))
    imported = json.loads(call("POST", f"/zones/{zone('one.test')}/dns_records/import", ZONE, "text/plain"))["result"]
    assert imported["recs_added"] == imported["total_records_parsed"] == len(ZONE.split("\n")) - 3, imported

    octodns("dump", "--output-dir", "dump", "one.test.", "ours")
    shutil.copy("dump/one.test.yaml", "files/two.test.yaml")
    synced("two.test.")
    assert exported("two.test") == exported("one.test"), "\n".join([*exported("two.test"), "", *exported("one.test")])

    text = call("GET", f"/zones/{zone('one.test')}/dns_records/export").replace("one.test.\t", "three.test.\t")
    pathlib.Path("zonefiles/three.test.").write_text(text)
    synced("three.test.")
    given, found = (bare(exported(name)) for name in ("one.test", "three.test"))
    # A proxied record has no time to live of its own; as a plain one it gets the least that octoDNS is allowed.
    given = [line.replace("\t1\t", "\t60\t") for line in given]
    assert found == sorted(given), "\n".join([*found, "", *given])
    print(f"octoDNS carried {len(given)} records")


main()
