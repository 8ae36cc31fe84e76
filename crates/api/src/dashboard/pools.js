/* ---- pools ---- */
const pools = new Part('pools');
const share = part => part === null ? '–' : `${(part * 100).toLocaleString(undefined, { maximumFractionDigits: 1 })} %`;
const titleOf = member => member.name || (member.port ? `${member.address}:${member.port}` : member.address);
const stateOf = one => !one.enabled ? 'disabled' : !one.healthy ? 'down' : one.weight === 0 ? 'drained' : 'healthy';
/* A link or a probe: there need not be one. */
const sign = state => state ? tag(state === 'up' ? 'healthy' : 'down', state) : '–';
function members(pool) {
  const changes = pool.members.flatMap(member => member.history.map(change => ({ member, ...change })));
  changes.sort((one, other) => other.at.localeCompare(one.at));
  return make('div', {}, table(`Members of ${pool.name}`, [
    ['Member', one => titleOf(one), 'head'], ['At', one => make('span', { cls: 'mono' }, one.tunnel_name ? `tunnel ${one.tunnel_name}` : one.address), 'long'],
    ['State', one => tag(stateOf(one))], ['Link', one => sign(one.link)], ['Probe', one => sign(one.probe)], ['Since', one => when(one.since)],
    ['Wanted', one => share(one.wanted_share), 'n'], ['Served', one => share(one.served_share), 'n'],
  ], pool.members, one => one.reason ? make('p', { cls: 'note bad' }, one.reason) : null),
  make('p', { cls: 'note' }, `Served: ${plural(pool.members.reduce((sum, one) => sum + one.recent_requests, 0), 'request')} through ${pool.counted_by.location} in the latest minutes.`),
  changes.length ? table(`History of ${pool.name}`, [
    ['When', one => when(one.at)], ['Member', one => titleOf(one.member)],
    ['Turned', one => one.healthy ? 'healthy' : `unhealthy: ${one.reason ?? 'nobody knows why'}`, 'long'],
  ], changes) : null);
}
function showPools(answer) {
  const isOpen = one => folded.get(one.id) ?? answer.result.length <= 3;
  const name = one => {
    const button = make('button', { type: 'button', cls: 'fold', 'aria-expanded': isOpen(one), 'data-key': one.id }, one.name);
    button.onclick = () => { folded.set(one.id, !isOpen(one)); showPools(answer); };
    return button;
  };
  pools.list(answer, all => table('Pools', [
    ['Name', name, 'head'], ['State', one => tag(stateOf(one))],
    ['Members', one => `${one.members.filter(it => it.enabled && it.healthy).length} of ${one.members.length} healthy`],
    ['Monitor', one => one.monitor ? 'yes' : 'none'], ['Leads', one => one.load_balancers.join(' ') || 'nobody', 'long'],
  ], all, one => isOpen(one) ? members(one) : null), 'There is no pool.', answer.result.map(isOpen));
}
