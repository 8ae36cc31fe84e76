/* ---- records of one zone ---- */
const records = new Part('records');
const TYPES = ['A', 'AAAA', 'CAA', 'CERT', 'CNAME', 'DNSKEY', 'DS', 'HTTPS', 'LOC', 'MX', 'NAPTR', 'NS', 'OPENPGPKEY', 'PTR', 'SMIMEA', 'SRV', 'SSHFP', 'SVCB', 'TLSA', 'TXT', 'URI'];
const PROXIABLE = ['A', 'AAAA', 'CNAME'];
/* The zone whose records are shown, the one that is being changed, and the one that is about to be deleted. */
let zone = null, changed = null, doomed = null;
const recordsPath = () => `${V4}/zones/${zone.id}/dns_records`;
/* As zone files have it: the priority of a mail server is part of it. */
const dataOf = one => one.type === 'MX' ? `${one.priority} ${one.content}` : one.content;

function openZone(one) {
  zone = one; fill(null); records.clear();
  records.box.hidden = false;
  $('records-h').firstChild.textContent = `Records of ${one.name}`;
  restart();
  $('r-name').focus();
}
function closeZone() { zone = changed = doomed = null; records.clear(); records.box.hidden = true; }
/* The form for a record: a new one, or one that is there. */
function fill(one) {
  changed = one;
  const usual = { name: '', type: 'A', content: '', ttl: 1, proxied: false, comment: '' };
  const { name, type, ttl, proxied, comment } = one ?? usual;
  $('r-name').value = name; $('r-type').value = type; $('r-type').disabled = !!one; $('r-content').value = one ? dataOf(one) : '';
  $('r-ttl').value = ttl === 1 ? '' : ttl; $('r-proxied').checked = proxied; $('r-comment').value = comment ?? '';
  $('r-go').textContent = one ? 'Save' : 'Add'; $('r-not').hidden = !one;
  refuseRecord('');
}
function refuseRecord(text) { $('r-wrong').textContent = text; $('r-wrong').hidden = !text; }
/* Does it, and says what the edge has against it. */
async function write(method, path, body) {
  const { control, done } = limited();
  for (const button of records.box.querySelectorAll('button')) button.disabled = true;
  try {
    await call(path, control.signal, token, method, body);
    fill(null); doomed = null;
    restart();
  } catch (error) {
    refuseRecord(error instanceof Refused ? `${error.message} (code ${error.code})` : 'The edge does not answer, so nobody knows whether it was done. Look at the list.');
  } finally {
    done();
    for (const button of records.box.querySelectorAll('button')) button.disabled = false;
  }
}
$('record').onsubmit = event => {
  event.preventDefault();
  const type = $('r-type').value, said = $('r-content').value.trim(), mail = type === 'MX' ? /^(\d+)\s+(.*)$/.exec(said) : null;
  const body = {
    type, name: $('r-name').value.trim() || '@', content: mail ? mail[2] : said, ttl: Number($('r-ttl').value) || 1, comment: $('r-comment').value.trim() || null,
  };
  if (mail) body.priority = Number(mail[1]);
  if (PROXIABLE.includes(type) || $('r-proxied').checked) body.proxied = $('r-proxied').checked;
  if (changed) write('PATCH', `${recordsPath()}/${changed.id}`, body); else write('POST', recordsPath(), body);
};
$('r-not').onclick = () => fill(null);
$('r-close').onclick = closeZone;
$('r-type').append(...TYPES.map(type => make('option', {}, type)));

function showRecords(answer) {
  // Closed while they were asked for.
  if (!zone) return;
  const act = one => {
    const change = make('button', { type: 'button', 'data-key': `change ${one.id}`, 'aria-label': `Change ${one.name} ${one.type}` }, 'Change');
    change.onclick = () => { fill(one); $('r-content').focus(); };
    const sure = doomed === one.id;
    const remove = make('button', { type: 'button', 'data-key': `delete ${one.id}`, 'aria-label': `${sure ? 'Really delete' : 'Delete'} ${one.name} ${one.type}`, cls: sure ? 'bad' : '' }, sure ? 'Really?' : 'Delete');
    remove.onclick = () => { if (sure) write('DELETE', `${recordsPath()}/${one.id}`); else { doomed = one.id; showRecords(answer); } };
    return make('span', { cls: 'acts' }, change, remove);
  };
  records.list(answer, all => table(`Records of ${zone.name}`, [
    ['Name', one => make('strong', {}, one.name), 'head'], ['Type', one => one.type], ['Content', one => make('span', { cls: 'mono' }, dataOf(one)), 'long'],
    ['TTL', one => one.ttl === 1 ? 'auto' : one.ttl], ['Proxied', one => one.proxied ? 'yes' : 'no'],
    ['Note', one => [one.comment, ...one.tags].filter(Boolean).join(', '), 'long'], ['', act],
  ], all), 'There is no record yet.', doomed);
}
