// The npm SDK against a node: only the base URL and the token are changed.
//
// Run by `sdk/main.rs`, with CLOUDFLARE_BASE_URL and CLOUDFLARE_API_TOKEN set.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

// An import knows no NODE_PATH.
const { default: Cloudflare } = createRequire(import.meta.url)("cloudflare");
const client = new Cloudflare();

/** The call fails with this status, and its first error has this code. */
async function refused(status, code, call) {
    const error = await call().then(() => assert.fail("not refused"), (error) => error);
    assert.equal(error.status, status, String(error));
    assert.equal(error.errors[0].code, code, String(error));
    return error;
}

async function all(list) {
    const found = [];
    for await (const one of list) found.push(one);
    return found;
}

const [account] = await all(client.accounts.list());
const account_id = account.id;
const zoneNamed = (name) => client.zones.create({ account: { id: account_id }, name, type: "full" });

const steps = {
    async "the token is verified"() {
        assert.equal((await client.user.tokens.verify()).status, "active");
        const stranger = new Cloudflare({ apiToken: "snk_" + "x".repeat(43), maxRetries: 0 });
        const error = await refused(403, 9109, () => stranger.zones.list());
        assert(error instanceof Cloudflare.PermissionDeniedError);
    },

    async "zones, records, batches, pages"() {
        const { id: zone_id } = await zoneNamed("npm.example");
        await refused(400, 1061, () => zoneNamed("npm.example"));
        const wanted = { zone_id, type: "A", name: "www.npm.example", content: "192.0.2.1", ttl: 300 };
        const made = await client.dns.records.create(wanted);
        await refused(400, 81058, () => client.dns.records.create(wanted));
        const edited = await client.dns.records.edit(made.id, { ...wanted, content: "192.0.2.2" });
        assert.equal(edited.content, "192.0.2.2");
        assert.deepEqual(await client.dns.records.get(made.id, { zone_id }), edited);
        const posts = Array.from({ length: 101 }, (_, i) => ({ type: "TXT", name: `t${i}`, content: '"x"', ttl: 60 }));
        const batch = await client.dns.records.batch({ zone_id, deletes: [{ id: made.id }], posts });
        assert.equal(batch.posts.length, 101);
        const texts = await all(client.dns.records.list({ zone_id, type: "TXT", per_page: 50 }));
        assert.equal(new Set(texts.map((record) => record.name)).size, 101);
        assert.deepEqual(await all(client.dns.records.list({ zone_id, type: "A" })), []);
        await client.zones.delete({ zone_id });
        await refused(404, 7003, () => client.zones.get({ zone_id }));
    },

    async "tunnels"() {
        const tunnels = client.zeroTrust.tunnels.cloudflared;
        const made = await tunnels.create({ account_id, name: "npm", config_src: "cloudflare" });
        await refused(409, 1013, () => tunnels.create({ account_id, name: "npm" }));
        const config = { ingress: [{ hostname: "n.example", service: "http://localhost:8000" }, { service: "http_status:404" }] };
        assert.equal((await tunnels.configurations.update(made.id, { account_id, config })).version, 1);
        assert.equal((await tunnels.configurations.get(made.id, { account_id })).config.ingress.length, 2);
        assert((await tunnels.token.get(made.id, { account_id })).length > 100);
        await tunnels.delete(made.id, { account_id });
        assert.deepEqual(await all(tunnels.list({ account_id, name: "npm", is_deleted: false })), []);
    },

    async "load balancing"() {
        const { monitors, pools } = client.loadBalancers;
        const { id: zone_id } = await zoneNamed("balanced.example");
        const monitor = await monitors.create({ account_id, type: "https", expected_codes: "2xx" });
        const origins = [{ name: "a", address: "192.0.2.1" }, { name: "b", address: "192.0.2.2" }];
        const pool = await pools.create({ account_id, name: "npm", origins, monitor: monitor.id });
        const name = "lb.balanced.example";
        const balancer = await client.loadBalancers.create({ zone_id, name, default_pools: [pool.id], fallback_pool: pool.id });
        assert.equal((await client.loadBalancers.get(balancer.id, { zone_id })).name, name);
        const still = await pools.delete(pool.id, { account_id }).then(() => assert.fail(), (error) => error);
        assert.equal(still.status, 412);
        const left = await pools.edit(pool.id, { account_id, origins: origins.slice(1) });
        assert.deepEqual(left.origins.map((origin) => origin.name), ["b"]);
        await client.loadBalancers.delete(balancer.id, { zone_id });
        await pools.delete(pool.id, { account_id });
        await monitors.delete(monitor.id, { account_id });
        await client.zones.delete({ zone_id });
    },
};

for (const [name, step] of Object.entries(steps)) {
    await step();
    console.log(name);
}
