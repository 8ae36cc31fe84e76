"""The Python SDK against a node: only the base URL and the token are changed.

Run by `sdk/main.rs`, with CLOUDFLARE_BASE_URL and CLOUDFLARE_API_TOKEN set.
"""

import time
import uuid

import cloudflare
from cloudflare import Cloudflare

client = Cloudflare()


def refused(kind, code, call, *words, **more):
    """The call raises this class of the SDK, whose first error has this code."""
    try:
        answer = call(*words, **more)
    except kind as error:
        errors = error.response.json()["errors"]
        assert errors[0]["code"] == code, errors
        return errors
    raise AssertionError(f"not refused: {answer}")


def account():
    [account] = client.accounts.list()
    assert client.accounts.get(account_id=account.id).name == account.name
    return account.id


def a_zone(name):
    return client.zones.create(account={"id": ACCOUNT}, name=name, type="full")


def the_token_is_verified():
    assert client.user.tokens.verify().status == "active"
    stranger = Cloudflare(api_token="snk_" + "x" * 43, max_retries=0)
    refused(cloudflare.AuthenticationError, 1000, stranger.user.tokens.verify)
    refused(cloudflare.PermissionDeniedError, 9109, stranger.zones.list)
    refused(cloudflare.BadRequestError, 6003, Cloudflare(api_token="two words", max_retries=0).zones.list)
    [membership] = client.memberships.list()
    assert membership.account.id == ACCOUNT
    assert client.user.get() is not None


def zones_and_their_settings():
    zone = a_zone("Walk.example")
    assert zone.name == "walk.example"
    refused(cloudflare.BadRequestError, 1061, a_zone, "walk.example")
    assert [found.id for found in client.zones.list(name="walk.example")] == [zone.id]
    assert client.zones.get(zone_id=zone.id).name == zone.name
    assert client.zones.edit(zone_id=zone.id, paused=True).paused is True
    setting = client.zones.settings.edit("ssl", zone_id=zone.id, value="strict")
    assert setting.value == "strict"
    assert client.zones.settings.get("ssl", zone_id=zone.id).value == "strict"
    assert client.dns.dnssec.get(zone_id=zone.id).status == "disabled"
    nobody = "0" * 32
    refused(cloudflare.NotFoundError, 7003, client.zones.get, zone_id="none")
    assert refused(cloudflare.NotFoundError, 7003, client.zones.get, zone_id=nobody)
    assert client.zones.delete(zone_id=zone.id).id == zone.id


def records_in_all_ways():
    zone = a_zone("records.example").id
    records = client.dns.records
    made = records.create(zone_id=zone, type="A", name="www.records.example", content="192.0.2.1", ttl=300, comment="one")
    assert (made.name, made.ttl, made.proxied, made.comment) == ("www.records.example", 300, False, "one")
    again = {"zone_id": zone, "type": "A", "name": "www", "content": "192.0.2.1", "ttl": 300, "comment": "one"}
    refused(cloudflare.BadRequestError, 81058, records.create, **again)
    errors = refused(
        cloudflare.BadRequestError, 1004, records.create, zone_id=zone, type="A", name="bad", content="192.0.2", ttl=1
    )
    assert errors[0]["error_chain"][0]["code"] == 9005, errors
    # Read, written back: nothing changes.
    read = records.get(made.id, zone_id=zone)
    assert read == made
    same = records.update(made.id, zone_id=zone, type="A", name=read.name, content=read.content, ttl=300, comment="one")
    assert same.modified_on == made.modified_on, (same, made)
    changed = records.edit(made.id, zone_id=zone, type="A", name=read.name, content="192.0.2.2", ttl=300)
    assert (changed.content, changed.comment) == ("192.0.2.2", "one")
    kinds = [
        {"type": "AAAA", "name": "six", "content": "2001:db8::1"},
        {"type": "CNAME", "name": "alias", "content": "www.records.example"},
        {"type": "MX", "name": "@", "content": "mail.records.example", "priority": 10},
        {"type": "TXT", "name": "@", "content": '"v=spf1 -all"'},
        {"type": "CAA", "name": "@", "data": {"flags": 0, "tag": "issue", "value": "ca.example"}},
        {"type": "SRV", "name": "_sip._tcp", "data": {"priority": 1, "weight": 2, "port": 5060, "target": "sip.records.example"}},
        {"type": "NS", "name": "below", "content": "ns.example.net"},
        {"type": "HTTPS", "name": "web", "data": {"priority": 1, "target": ".", "value": 'alpn="h2"'}},
    ]
    for kind in kinds:
        record = records.create(zone_id=zone, ttl=1, **kind)
        assert records.get(record.id, zone_id=zone).type == kind["type"]
    assert {record.type for record in records.list(zone_id=zone)} == {"A"} | {kind["type"] for kind in kinds}
    [found] = records.list(zone_id=zone, type="A", name={"exact": "www.records.example"}, content={"startswith": "192.0"})
    assert found.id == made.id
    [found] = records.list(zone_id=zone, type="MX", match="all", order="name", direction="desc")
    assert found.priority == 10

    batch = records.batch(
        zone_id=zone,
        deletes=[{"id": made.id}],
        posts=[{"type": "A", "name": "b1", "content": "192.0.2.3", "ttl": 60}, {"type": "A", "name": "b2", "content": "192.0.2.4", "ttl": 60}],
    )
    assert len(batch.posts) == 2 and batch.deletes[0].id == made.id
    # All or nothing.
    try:
        records.batch(zone_id=zone, deletes=[{"id": batch.posts[0].id}], posts=[{"type": "A", "name": "b3", "content": "x", "ttl": 60}])
        raise AssertionError("a batch with a bad record was taken")
    except cloudflare.BadRequestError:
        assert records.get(batch.posts[0].id, zone_id=zone).content == "192.0.2.3"

    exported = records.export(zone_id=zone)
    assert "b1.records.example." in exported, exported
    other = a_zone("copied.example").id
    counted = records.import_(zone_id=other, file="$ORIGIN copied.example.\nx 300 IN A 192.0.2.9\ny 300 IN TXT \"hello\"\n")
    assert counted.recs_added == 2, counted
    for gone in (zone, other):
        client.zones.delete(zone_id=gone)
    refused(cloudflare.NotFoundError, 7003, records.get, made.id, zone_id=zone)


def lists_end_after_any_number():
    zone = a_zone("many.example").id
    total = 0
    for wanted in (0, 1, 20, 21, 2500):
        for start in range(total, wanted, 500):
            posts = [{"type": "A", "name": f"n{i}", "content": "192.0.2.1", "ttl": 60} for i in range(start, min(start + 500, wanted))]
            # The typed call takes seconds of the client's time for as many.
            client.post(f"/zones/{zone}/dns_records/batch", body={"posts": posts}, cast_to=object)
        total = wanted
        for size in (100, 1000) if wanted == 2500 else (20,):
            names = [record.name for record in client.dns.records.list(zone_id=zone, per_page=size)]
            assert len(names) == len(set(names)) == wanted, (wanted, size, len(names))
    client.zones.delete(zone_id=zone)


def tunnels_and_their_configurations():
    tunnels = client.zero_trust.tunnels.cloudflared
    made = tunnels.create(account_id=ACCOUNT, name="walk", config_src="cloudflare")
    assert made.status == "inactive", made
    refused(cloudflare.ConflictError, 1013, tunnels.create, account_id=ACCOUNT, name="walk")
    token = tunnels.token.get(made.id, account_id=ACCOUNT)
    assert len(token) > 100
    empty = tunnels.configurations.get(made.id, account_id=ACCOUNT)
    assert (empty.version, empty.config) == (0, None)
    rules = [{"hostname": "w.walk.example", "service": "http://localhost:8000"}, {"service": "http_status:404"}]
    put = tunnels.configurations.update(made.id, account_id=ACCOUNT, config={"ingress": rules})
    assert put.version == 1
    got = tunnels.configurations.get(made.id, account_id=ACCOUNT)
    assert got.config.ingress[0].hostname == "w.walk.example"
    try:
        tunnels.configurations.update(made.id, account_id=ACCOUNT, config={"ingress": rules[:1]})
        raise AssertionError("the last rule must match everything")
    except cloudflare.BadRequestError:
        pass
    assert list(tunnels.connections.get(made.id, account_id=ACCOUNT)) == []
    assert tunnels.edit(made.id, account_id=ACCOUNT, name="walked").name == "walked"
    assert [tunnel.id for tunnel in tunnels.list(account_id=ACCOUNT, name="walked", is_deleted=False)] == [made.id]
    assert tunnels.delete(made.id, account_id=ACCOUNT).deleted_at is not None
    assert [tunnel.id for tunnel in tunnels.list(account_id=ACCOUNT, name="walked", is_deleted=False)] == []
    refused(cloudflare.NotFoundError, 7003, tunnels.get, str(uuid.uuid4()), account_id=ACCOUNT)


def load_balancing():
    zone = a_zone("balanced.example").id
    balancers = client.load_balancers
    monitor = balancers.monitors.create(account_id=ACCOUNT, type="https", expected_codes="2xx", path="/health", interval=90)
    assert (monitor.interval, monitor.retries) == (90, 2)
    origins = [{"name": "a", "address": "192.0.2.1", "weight": 0.5}, {"name": "b", "address": "192.0.2.2", "enabled": False}]
    pool = balancers.pools.create(account_id=ACCOUNT, name="main", origins=origins, monitor=monitor.id)
    assert [(origin.name, origin.weight) for origin in pool.origins] == [("a", 0.5), ("b", 1)]
    balancer = balancers.create(
        zone_id=zone, name="lb.balanced.example", default_pools=[pool.id], fallback_pool=pool.id, proxied=True, steering_policy="random"
    )
    assert balancers.get(balancer.id, zone_id=zone).default_pools == [pool.id]
    assert [found.id for found in balancers.list(zone_id=zone)] == [balancer.id]
    for kind, id in ((balancers.monitors, monitor.id), (balancers.pools, pool.id)):
        try:
            kind.delete(id, account_id=ACCOUNT)
            raise AssertionError("what is referred to was removed")
        except cloudflare.APIStatusError as error:
            assert error.status_code == 412, error
    # Deregistration: an origin out of its pool, then all of it.
    pool = balancers.pools.edit(pool.id, account_id=ACCOUNT, origins=origins[:1])
    assert len(pool.origins) == 1 and pool.monitor == monitor.id
    balancers.delete(balancer.id, zone_id=zone)
    balancers.pools.delete(pool.id, account_id=ACCOUNT)
    balancers.monitors.delete(monitor.id, account_id=ACCOUNT)
    assert list(balancers.pools.list(account_id=ACCOUNT)) == []
    client.zones.delete(zone_id=zone)


def a_token_for_less():
    mine, other = a_zone("mine.example").id, a_zone("other.example").id
    groups = {group.name: group.id for group in client.user.tokens.permission_groups.list()}
    made = client.user.tokens.create(
        name="one zone",
        policies=[
            {
                "effect": "allow",
                "resources": {f"com.cloudflare.api.account.zone.{mine}": "*"},
                "permission_groups": [{"id": groups["DNS Write"]}, {"id": groups["Zone Read"]}],
            }
        ],
    )
    less = Cloudflare(api_token=made.value, max_retries=0)
    assert [zone.id for zone in less.zones.list()] == [mine]
    record = less.dns.records.create(zone_id=mine, type="A", name="a", content="192.0.2.1", ttl=1)
    try:
        less.zones.delete(zone_id=mine)
        raise AssertionError("a token that reads zones deleted one")
    except cloudflare.PermissionDeniedError:
        pass
    refused(cloudflare.NotFoundError, 7003, less.dns.records.get, record.id, zone_id=other)
    rolled = client.user.tokens.value.update(made.id)
    refused(cloudflare.PermissionDeniedError, 9109, less.zones.list)
    assert [zone.id for zone in Cloudflare(api_token=rolled).zones.list()] == [mine]
    client.user.tokens.delete(made.id)
    for zone in (mine, other):
        client.zones.delete(zone_id=zone)


# `openssl req -new`; its names do not count, and its key is nobody's.
CSR = """-----BEGIN CERTIFICATE REQUEST-----
MIHKMHMCAQAwETEPMA0GA1UEAwwGb3JpZ2luMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEs4mExMgOdBiBHCG6NRBryb7e1oOogRbP0M0UqodtSrP0Fr4LyJf+Ya2F
EEz6ERzM4k3ONnJwwgERFs6JoBFg6qAAMAoGCCqGSM49BAMCA0cAMEQCIAur71zd
JutwFKBjkEWjN3uNJni+lGeAiv0UtUBYb7XhAiBZyz4tZ1YlMB1TcxY6wdAtwSbg
JrBxw9u9HXAhhdArXg==
-----END CERTIFICATE REQUEST-----
"""


def certificates_of_origins():
    zone = a_zone("certified.example").id
    certificates = client.origin_ca_certificates
    wanted = {"csr": CSR, "hostnames": ["a.certified.example", "*.certified.example"], "request_type": "origin-ecc"}
    made = certificates.create(requested_validity=90, **wanted)
    assert made.certificate.startswith("-----BEGIN CERTIFICATE-----") and made.hostnames == wanted["hostnames"], made
    assert certificates.get(made.id).certificate == made.certificate
    assert [found.id for found in certificates.list(zone_id=zone)] == [made.id]
    refused(cloudflare.BadRequestError, 1010, certificates.create, **(wanted | {"hostnames": ["a.elsewhere.example"]}))
    refused(cloudflare.BadRequestError, 1004, certificates.create, **(wanted | {"csr": "hello"}))
    assert certificates.delete(made.id).revoked_at is not None
    assert list(certificates.list(zone_id=zone)) == []
    client.zones.delete(zone_id=zone)


def what_has_no_effect_yet_is_kept():
    zone = a_zone("kept.example").id
    assert client.argo.smart_routing.edit(zone_id=zone, value="on").value == "on"
    assert client.argo.smart_routing.get(zone_id=zone).value == "on"
    client.argo.tiered_caching.edit(zone_id=zone, value="on")
    assert client.argo.tiered_caching.get(zone_id=zone).value == "on"
    assert client.cache.smart_tiered_cache.get(zone_id=zone).value == "off"
    client.cache.smart_tiered_cache.edit(zone_id=zone, value="on")
    client.cache.smart_tiered_cache.delete(zone_id=zone)
    assert client.cache.smart_tiered_cache.get(zone_id=zone).value == "off"
    assert client.cache.purge(zone_id=zone, purge_everything=True).id == zone
    assert client.cache.purge(zone_id=zone, files=["https://kept.example/a"]).id == zone

    app = {"protocol": "tcp/22", "dns": {"type": "CNAME", "name": "ssh.kept.example"}, "origin_direct": ["tcp://192.0.2.1:22"]}
    made = client.spectrum.apps.create(zone_id=zone, **app)
    assert client.spectrum.apps.get(made.id, zone_id=zone).protocol == "tcp/22"
    try:
        client.spectrum.apps.create(zone_id=zone, **app)
        raise AssertionError("a port of a name belongs to one application")
    except cloudflare.ConflictError:
        pass
    assert [found.id for found in client.spectrum.apps.list(zone_id=zone)] == [made.id]
    client.spectrum.apps.delete(made.id, zone_id=zone)

    limit = {
        "description": "few",
        "expression": 'http.request.uri.path eq "/login"',
        "action": "block",
        "ratelimit": {"characteristics": ["ip.src", "cf.colo.id"], "period": 60, "requests_per_period": 10, "mitigation_timeout": 60},
    }
    phases = client.rulesets.phases
    refused(cloudflare.NotFoundError, 10003, phases.get, "http_ratelimit", zone_id=zone)
    phases.update("http_ratelimit", zone_id=zone, rules=[limit])
    entry = phases.get("http_ratelimit", zone_id=zone)
    assert entry.rules[0].description == "few" and entry.version == "1", entry

    name = client.custom_hostnames.create(zone_id=zone, hostname="shop.customer.example", ssl={"method": "http", "type": "dv"})
    assert client.custom_hostnames.get(name.id, zone_id=zone).status == "pending"
    client.zones.delete(zone_id=zone)

    tunnel = client.zero_trust.tunnels.cloudflared.create(account_id=ACCOUNT, name="private", config_src="cloudflare")
    networks = client.zero_trust.networks
    route = networks.routes.create(account_id=ACCOUNT, network="10.1.0.0/16", tunnel_id=tunnel.id, comment="office")
    assert [found.id for found in networks.routes.list(account_id=ACCOUNT, is_deleted=False)] == [route.id]
    assert networks.routes.ips.get("10.1.2.3", account_id=ACCOUNT).network == "10.1.0.0/16"
    network = networks.virtual_networks.create(account_id=ACCOUNT, name="second")
    networks.virtual_networks.delete(network.id, account_id=ACCOUNT)
    networks.routes.delete(route.id, account_id=ACCOUNT)
    client.zero_trust.tunnels.cloudflared.delete(tunnel.id, account_id=ACCOUNT)


def what_was_done_can_be_read_back():
    zone = a_zone("audited.example").id
    client.zones.delete(zone_id=zone)
    told = [entry for entry in client.audit_logs.list(account_id=ACCOUNT, per_page=1000) if entry.resource.id == zone]
    newest, oldest = told[0], told[-1]
    assert (newest.action.type, newest.resource.type) == ("delete", "zones"), newest
    assert (oldest.action.type, oldest.resource.type) == ("create", "zones"), oldest
    assert newest.actor.ip == "127.0.0.1" and newest.metadata["revision"] > oldest.metadata["revision"], newest


ACCOUNT = account()
for step in (
    the_token_is_verified,
    zones_and_their_settings,
    records_in_all_ways,
    lists_end_after_any_number,
    tunnels_and_their_configurations,
    load_balancing,
    a_token_for_less,
    certificates_of_origins,
    what_has_no_effect_yet_is_kept,
    what_was_done_can_be_read_back,
):
    started = time.monotonic()
    step()
    print(f"{step.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
