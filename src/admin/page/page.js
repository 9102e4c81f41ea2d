'use strict';

// All that comes from the server is put into the page as text, never as markup: clusters may say what they like.

/** At least so long from one answer to the next question, in milliseconds. */
const EVERY = { status: 2000, changes: 2000, services: 10000, explanation: 10000 };
/** And so many times as long as the last answer took: the page takes a twentieth of the time of the server. */
const REST = 20;
/** But one answer that was slow by chance does not make the page old. */
const LONGEST_REST = 20_000;
/** The server ends a connection after ten seconds. */
const PATIENCE = 9000;
/** From the last key to the search. */
const TYPING = 120;
const PAGE = matchMedia('(max-width: 40rem)').matches ? 30 : 100;
const CHANGES_SHOWN = 6;
const CHANGES_KEPT = 500;
/** Not more often is something said to screen readers. */
const SAY_EVERY = 4000;

const STATES = {
    down: ['down', 'All its external addresses failed their probes, or an operator said that it is down.'],
    empty: ['nothing ready', 'No endpoint is ready, or there is no address: it cannot be answered with.'],
    suspect: ['suspect', 'Some of its external addresses are down, or an instance says so and no majority does.'],
    overloaded: ['overloaded', 'It is so full that it stands behind all others.'],
    drained: ['drained', 'Taken out of the answers by an operator.'],
    shifting: ['shifting', 'A part of its answers puts others first: it is loaded, or is being drained gradually.'],
    fine: ['fine', 'It is answered with.'],
    notExported: ['not exported', 'The cluster has it and does not offer it to the federation.'],
    stale: ['stale', 'Not heard since the server was started: it is answered for as its snapshot on disk has it.'],
    silent: ['silent', 'Its API says nothing any more: its last answers stay, and of what is equally near, others come first.'],
    notSynced: ['not synced', 'Never heard in full: names that only it could have are answered with SERVFAIL.'],
    synced: ['synced', 'All that the cluster has was read, and it is being watched.'],
};
const KINDS = { cluster: 'Cluster', service: 'Service', health: 'Health', directive: 'Operator', configuration: 'Configuration' };

// ---- small tools

const $ = id => document.getElementById(id);

/** An element with attributes and children; `null` children are left out, strings are text. */
function el(tag, attributes, ...children) {
    const [name, ...classes] = tag.split('.');
    const node = document.createElement(name);
    if (classes.length) node.className = classes.join(' ');
    for (const [key, value] of Object.entries(attributes ?? {})) {
        if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
        else if (value === true) node.setAttribute(key, '');
        else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
    }
    node.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
    return node;
}

function svg(tag, attributes, ...children) {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
}

const MARKS = ['fine', 'down', 'empty', 'suspect', 'overloaded', 'drained', 'shifting', 'notExported', 'stale', 'client'];
const markName = state => ({ notSynced: 'down', synced: 'fine', silent: 'stale' })[state] ?? (MARKS.includes(state) ? state : 'unknown');
const mark = state => svg('svg', { class: 'mark', 'aria-hidden': 'true' }, svg('use', { href: `#m-${markName(state)}` }));
const word = state => STATES[state]?.[0] ?? String(state);
const badge = (state, text) => el(`span.state.s-${markName(state)}`, { title: STATES[state]?.[1] }, mark(state), text ?? word(state));

const count = n => Number(n).toLocaleString('en');
const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : (many ?? one + 's')}`;
const percent = part => `${Math.round(part * 100)} %`;

function age(seconds) {
    for (const [length, unit] of [
        [86400, 'd'],
        [3600, 'h'],
        [60, 'min'],
    ]) {
        if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
    }
    return `${Math.max(0, Math.round(seconds))} s`;
}

/** A time as the server writes it, in words; its date only if it is not today. */
function time(text) {
    const at = new Date(text);
    if (Number.isNaN(at.getTime())) return el('span', {}, String(text));
    const today = at.toDateString() === new Date().toDateString();
    return el('time', { datetime: text, title: text }, `${today ? '' : `${at.toLocaleDateString()} `}${at.toLocaleTimeString()}`);
}

const signs = new WeakMap();

/** Makes the children of `parent` those of `items`, and touches only what is new or not the same as before. `build` gets the
 * node that an item had, which it may give back. */
function sync(parent, items, key, build) {
    const before = new Map([...parent.children].map(node => [node.dataset.key, node]));
    items.forEach((item, place) => {
        const name = key(item);
        const sign = JSON.stringify(item);
        let node = before.get(name);
        before.delete(name);
        if (!node || signs.get(node) !== sign) {
            const made = build(item, node);
            made.dataset.key = name;
            signs.set(made, sign);
            if (node && node !== made) node.replaceWith(made);
            node = made;
        }
        if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
    });
    before.forEach(node => node.remove());
}

/** Makes the children of `parent` these; those that are as before stay, and with them what is selected or has the focus. */
function swap(parent, nodes, from = 0) {
    const before = [...parent.childNodes];
    nodes.forEach((node, place) => {
        if (place < from) return;
        if (!before[place]) parent.append(node);
        else if (!before[place].isEqualNode(node)) before[place].replaceWith(node);
    });
    before.slice(nodes.length).forEach(node => node.remove());
}

/** With roles, which `display: block` on narrow screens would take away; without columns of which nothing is known. */
function table(caption, allHeads, allRows) {
    const isKept = (_, n) => n === 0 || allRows.length === 0 || allRows.some(cells => cells[n] !== null && cells[n] !== '');
    const heads = allHeads.filter(isKept);
    const rows = allRows.map(cells => cells.filter(isKept));
    const head = el(
        'thead',
        { role: 'rowgroup' },
        el(
            'tr',
            { role: 'row' },
            heads.map(text => el('th', { scope: 'col', role: 'columnheader' }, text)),
        ),
    );
    return el(
        'table.cards',
        { role: 'table' },
        el('caption', {}, caption),
        head,
        el(
            'tbody',
            { role: 'rowgroup' },
            rows.map(cells => row(heads, cells)),
        ),
    );
}

/** The first cell is the row's head. A cell: text, a node, a list of them, or `null`. */
function row(heads, cells) {
    return el(
        'tr',
        { role: 'row' },
        cells.map((cell, n) =>
            n === 0
                ? el('th', { scope: 'row', role: 'rowheader' }, cell)
                : el(
                      cell === null || cell === '' ? 'td.none' : 'td',
                      { role: 'cell', 'data-head': heads[n] },
                      Array.isArray(cell) ? el('div', {}, cell) : cell,
                  ),
        ),
    );
}

const pairs = list =>
    el(
        'dl.pairs',
        {},
        list.filter(([, value]) => value).flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]),
    );

// ---- what is said to screen readers, not too often

let saying = null;
let saidAt = 0;

function say(text) {
    clearTimeout(saying);
    saying = setTimeout(
        () => {
            saidAt = Date.now();
            $('said').textContent = text;
        },
        Math.max(50, saidAt + SAY_EVERY - Date.now()),
    );
}

// ---- the address bar: what somebody looks at can be sent to a colleague

const KEYS = ['search', 'only', 'cluster', 'from', 'service', 'seen', 'kind', 'name', 'type', 'in', 'client', 'subnet'];
let look = readAddress();

function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    return Object.fromEntries(KEYS.map(key => [key, given.get(key) ?? '']));
}

/** `step`: one that the browser's way back undoes. */
function write(changes, step) {
    Object.assign(look, changes);
    const given = new URLSearchParams(KEYS.filter(key => look[key]).map(key => [key, look[key]]));
    const address = `#${given}`;
    if (address === (location.hash || '#')) return;
    if (step) history.pushState(null, '', address);
    else history.replaceState(null, '', address);
}

// ---- asking the server

class Refused extends Error {}
class Unanswered extends Error {}

/** The last time that anything was answered, and since when nothing is. */
const reach = { last: null, lostSince: null };

/** How long the answers to the questions with a signal took, in milliseconds. */
const answerTimes = new WeakMap();

async function ask(path, parameters, signal) {
    const given = new URLSearchParams(Object.entries(parameters ?? {}).filter(([, value]) => value !== '' && value !== null));
    const patience = AbortSignal.timeout(PATIENCE);
    const began = performance.now();
    let response, body;
    try {
        response = await fetch(given.size ? `${path}?${given}` : path, {
            cache: 'no-store',
            signal: AbortSignal.any([signal, patience]),
        });
        body = await response.text();
    } catch (error) {
        // What was asked for is not wanted any more; that says nothing of the server.
        if (!signal.aborted) lost();
        throw new Unanswered(path, { cause: error });
    }
    reached();
    // What the browser did meanwhile is not the server's time.
    const timing = performance.getEntriesByName(response.url, 'resource').at(-1);
    performance.clearResourceTimings();
    const took = timing ? timing.responseEnd - timing.startTime : performance.now() - began;
    answerTimes.set(signal, (answerTimes.get(signal) ?? 0) + took);
    if (!response.ok) throw new Refused(body.trim() || `${path}: HTTP ${response.status}`);
    try {
        return JSON.parse(body);
    } catch {
        throw new Refused(`${path}: what came is not JSON`);
    }
}

function reached() {
    if (reach.lostSince) {
        say('The server is reached again.');
        feeds.forEach(feed => {
            feed.due = 0;
        });
    }
    reach.last = new Date();
    reach.lostSince = null;
    showReach();
}

function lost() {
    if (!reach.lostSince) {
        reach.lostSince = new Date();
        // It is in a live region itself.
        const what = reach.last ? `What is shown is of ${reach.last.toLocaleTimeString()}, ` : 'Nothing was heard from it yet.';
        $('lost').replaceChildren(
            `The server cannot be reached since ${reach.lostSince.toLocaleTimeString()}. ${what}`,
            reach.last ? el('span', { id: 'old', 'aria-hidden': 'true' }) : '',
        );
    }
    showReach();
}

function showReach() {
    const live = $('live');
    const is = reach.lostSince ? 'off' : reach.last ? 'on' : '';
    if (live.className !== `live ${is}`.trim()) {
        live.className = `live ${is}`.trim();
        live.replaceChildren(
            mark(reach.lostSince ? 'down' : reach.last ? 'fine' : 'unknown'),
            el('span', {}, reach.lostSince ? 'Not reached' : reach.last ? 'Live' : 'Asking the server'),
        );
        document.title = `${reach.lostSince ? '(not reached) ' : ''}Signpost`;
    }
    if (!reach.lostSince) $('lost').replaceChildren();
    else if ($('old')) $('old').textContent = `${age((Date.now() - reach.last) / 1000)} old.`;
}

/** Something that is asked for again and again; `load` gets a signal, and a newer question ends an older one. */
class Feed {
    constructor(every, load) {
        Object.assign(this, { every, load, due: 0, earliest: 0, controller: null });
    }

    async run() {
        this.controller?.abort();
        const controller = (this.controller = new AbortController());
        const began = performance.now();
        try {
            await this.load(controller.signal);
        } catch (error) {
            if (error instanceof Refused) {
                if (this.controller === controller) this.refused(error.message);
            } else if (!(error instanceof Unanswered)) throw error;
        } finally {
            if (this.controller === controller) {
                this.controller = null;
                const now = performance.now();
                const took = answerTimes.get(controller.signal) ?? now - began;
                this.earliest = now + Math.min(LONGEST_REST, REST * took);
                this.due = Math.max(now + this.every, this.earliest);
            }
        }
    }

    /** As soon as the server had its rest. */
    soon() {
        this.due = Math.min(this.due, this.earliest);
    }

    tick() {
        if (!this.controller && performance.now() >= this.due) this.run();
    }
}

// ---- status: clusters, health, directives

let status = null;

const statusFeed = new Feed(EVERY.status, async signal => {
    status = await ask('/status', {}, signal);
    showStatus();
});
statusFeed.refused = message => swap($('notices'), [el('li.s-down', {}, mark('down'), ' ', el('span', {}, message))]);

/** What is wrong with a cluster as a whole, the worst first; `fine` if nothing is. */
function clusterState(cluster) {
    if (cluster.state === 'notSynced') return 'notSynced';
    if (cluster.drained) return 'drained';
    if (cluster.state === 'stale') return 'stale';
    if (cluster.silent) return 'silent';
    if (wholeDirectives(cluster.name).some(directive => directive.phase === 'shifting')) return 'shifting';
    return 'synced';
}

const wholeDirectives = name =>
    status.directives.filter(directive => directive.cluster === name && !directive.service && directive.phase !== 'over');

const CLUSTER_HEADS = ['Cluster', 'State', 'Heard', 'Place', 'Services', 'Voters', 'Trouble'];

function clusterCells(cluster) {
    const states = [badge(cluster.state)];
    if (cluster.snapshot && cluster.state !== 'synced') states.push(el('small', {}, 'as of ', time(cluster.snapshot)));
    if (cluster.silent) states.push(badge('silent'));
    if (cluster.drained) states.push(badge('drained'));
    for (const directive of wholeDirectives(cluster.name)) {
        if (directive.phase === 'shifting') states.push(badge('shifting', 'being drained'));
        else if (directive.phase === 'scheduled') states.push(el('small', {}, `${directive.action} is scheduled`));
    }
    const trouble = [
        [cluster.errors, 'failed read'],
        [cluster.objectsSkipped, 'object left out', 'objects left out'],
        [cluster.heldDeletions, 'deletion held', 'deletions held'],
    ]
        .filter(([n]) => n > 0)
        .map(([n, one, many]) => plural(n, one, many));
    trouble.push(...cluster.missingKinds.map(kind => `no ${kind}`));
    const voter = cluster.voter;
    return [
        el(
            'button.plain',
            { type: 'button', title: 'Show its services', onclick: () => filterBy({ cluster: cluster.name }) },
            cluster.name,
        ),
        states,
        el('span.short', {}, cluster.heardSeconds === null ? 'never' : `${age(cluster.heardSeconds)} ago`),
        [cluster.region ?? 'not known', cluster.availabilityZones.length ? el('small', {}, cluster.availabilityZones.join(', ')) : null],
        [count(cluster.services), el('small.short', {}, plural(cluster.endpointSlices, 'slice'))],
        voter ? [count(voter.counting), voter.silent ? el('small', {}, `${count(voter.silent)} silent`) : null] : null,
        trouble.length ? trouble.map(text => el('small', {}, text)) : null,
    ];
}

function showStatus() {
    const { clusters, health, directives } = status;
    const ready = status.notReady.length === 0;
    const heard = clusters.filter(cluster => cluster.state === 'synced').length;
    const facts = [
        ['Server', badge(ready ? 'fine' : 'down', ready ? 'ready' : 'not ready'), `up for ${age(status.uptimeSeconds)}`],
        ['Clusters', badge(heard === clusters.length ? 'fine' : 'stale', `${heard} of ${clusters.length} synced`), drainedText(clusters)],
        ['Names', count(status.names), 'of services and namespaces'],
        health
            ? [
                  'Probed addresses',
                  badge(health.down ? 'down' : health.suspect ? 'suspect' : 'fine', `${count(health.up)} up`),
                  `${count(health.down)} down, ${count(health.suspect)} suspect, ${count(health.unknown)} not known yet`,
              ]
            : ['Probed addresses', '–', 'nothing is probed'],
    ].map(fact => el('div', {}, el('dt', {}, fact[0]), el('dd.big', {}, fact[1]), el('dd.more', {}, fact[2])));
    swap($('facts'), facts);

    const notices = status.notReady.map(reason => ['down', `Not ready: ${reason}`]);
    if (health?.frozen) notices.push(['suspect', 'The breaker holds: so many addresses failed at once that none is removed.']);
    if (health?.isolated) notices.push(['suspect', 'This instance is isolated: it trusts its own probes no more, and removes nothing.']);
    if (health?.ownVote === false) notices.push(['suspect', 'What this instance says is not read by the others.']);
    for (const cluster of clusters) {
        if (cluster.state !== 'synced')
            notices.push([cluster.state, `${cluster.name}: ${word(cluster.state)}. ${STATES[cluster.state]?.[1] ?? ''}`]);
        if (cluster.silent) notices.push(['silent', `${cluster.name}: ${word('silent')}. ${STATES.silent[1]}`]);
        if (cluster.heldDeletions)
            notices.push(['suspect', `${cluster.name}: ${plural(cluster.heldDeletions, 'deletion')} held, since so many came at once.`]);
    }
    sync(
        $('notices'),
        notices,
        notice => notice[1],
        ([state, text]) => el(`li.s-${markName(state)}`, {}, mark(state), ' ', el('span', {}, text)),
    );

    if (!$('cluster-table').firstChild) $('cluster-table').append(table('All clusters of the federation', CLUSTER_HEADS, []));
    const marked = clusters.map(cluster => ({ ...cluster, said: wholeDirectives(cluster.name) }));
    sync(
        $('cluster-table').querySelector('tbody'),
        marked,
        cluster => cluster.name,
        (cluster, before) => {
            const made = row(CLUSTER_HEADS, clusterCells(cluster));
            // The name is a button, and stays.
            if (before) swap(before, [...made.children], 1);
            return before ?? made;
        },
    );

    const inForce = directives.filter(directive => directive.phase !== 'over');
    const box = $('directives');
    if (inForce.length === 0) box.replaceChildren();
    else {
        if (!box.firstChild) box.append(el('h3', {}, 'What operators said'), el('ul.directives'));
        sync(
            box.lastChild,
            inForce,
            directive => JSON.stringify(directive),
            directive => el('li', {}, directiveText(directive)),
        );
    }
    const zones = status.zones.map(zone => zone.name.replace(/\.$/, ''));
    $('about').textContent =
        `Signpost ${status.version}. Zones: ${zones.join(', ') || 'none'}. ` +
        `Listeners: ${status.listeners.map(listener => `${listener.address} (${listener.view})`).join(', ') || 'none'}.`;
    if (!$('q-name').placeholder && zones.length) $('q-name').placeholder = `cart.shop.${serviceZone()}`;

    options($('cluster'), [['', 'any'], ...clusters.map(cluster => [cluster.name, cluster.name])], look.cluster);
    options($('q-cluster'), [['', 'outside'], ...insiders().map(name => [name, `inside ${name}`])], look.in);
    drawMap();
}

function drainedText(clusters) {
    const drained = clusters.filter(cluster => cluster.drained).map(cluster => cluster.name);
    return drained.length ? `drained: ${drained.join(', ')}` : 'none is drained';
}

function directiveText({ cluster, service, action, phase, from, until, reason }) {
    return [
        el('strong', {}, `${action} ${cluster}${service ? `/${service}` : ''}`),
        `: ${phase}`,
        ...(from ? [' from ', time(from)] : []),
        ...(until ? [' until ', time(until)] : []),
        reason ? ` (${reason})` : '',
    ];
}

/** Clusters whose internal view some listener gives. */
function insiders() {
    const views = status.listeners.map(listener => listener.view);
    const all = views.includes('by source address');
    return status.clusters.map(cluster => cluster.name).filter(name => all || views.includes(`internal to ${name}`));
}

/** From where a service can be asked; clients outside are refused in zones of the schema mcs. */
function askers() {
    const inside = insiders().map(name => [name, `inside ${name}`]);
    return serviceZone().startsWith('svc.') && inside.length ? inside : [['', 'outside'], ...inside];
}

/** What stands behind `SERVICE.NAMESPACE.` in the first zone that has services. */
function serviceZone() {
    const zone = status?.zones.find(of => of.schema === 'federation') ?? status?.zones.find(of => of.schema === 'mcs');
    const name = zone?.name.replace(/\.$/, '') ?? '';
    return zone?.schema === 'mcs' ? `svc.${name}` : name;
}

/** A select's options, left alone while they are the same. What is chosen stays, also if it is gone. */
function options(select, list, chosen) {
    const all = list.some(([value]) => value === chosen) ? list : [...list, [chosen, chosen]];
    const sign = JSON.stringify(all);
    if (select.dataset.sign !== sign) {
        select.dataset.sign = sign;
        select.replaceChildren(...all.map(([value, text]) => el('option', { value }, text)));
    }
    if (select.value !== chosen && document.activeElement !== select) select.value = chosen;
}

// ---- the map

/** What the last explanation in the form says: where the client is, and which clusters come first. */
let route = null;
const MAP_DEGREES = { top: 84, bottom: -57 };

function drawMap() {
    if (!status) return;
    const map = $('map');
    const width = map.clientWidth || 360;
    const scale = width / 360;
    const height = (MAP_DEGREES.top - MAP_DEGREES.bottom) * scale;
    const sign = JSON.stringify([width, route, status.clusters.map(c => [c.name, clusterState(c), c.latitude, c.longitude])]);
    if (map.dataset.sign === sign) return;
    map.dataset.sign = sign;
    map.setAttribute('viewBox', `0 0 ${width} ${height}`);
    // The outline is in half degrees from the date line and the pole.
    $('land').setAttribute('transform', `translate(0 ${-(90 - MAP_DEGREES.top) * scale}) scale(${scale / 2})`);
    const point = ({ latitude, longitude }) => [(longitude + 180) * scale, (MAP_DEGREES.top - latitude) * scale];
    const isPlaced = of => Number.isFinite(of?.latitude) && Number.isFinite(of?.longitude);

    const placed = status.clusters.filter(isPlaced);
    const spots = placed.map(cluster => ({ name: cluster.name, state: clusterState(cluster), at: point(cluster) }));
    const client = isPlaced(route?.place) ? { name: 'client', state: 'client', at: point(route.place) } : null;
    const marks = client ? [client, ...spots] : spots;
    spread(marks);
    // The client is drawn last, over what it may be beside.
    $('marks').replaceChildren(...labelled(marks, width, height).reverse());
    $('routes').replaceChildren(...(client ? routes(client, spots, width) : []));

    const unplaced = status.clusters.filter(cluster => !isPlaced(cluster)).map(cluster => cluster.name);
    const parts = [placed.length ? 'Where the clusters are; the table says the same in words.' : 'The place of no cluster is known.'];
    if (placed.length && unplaced.length) parts.push(`Not on the map, since no coordinates are known: ${unplaced.join(', ')}.`);
    if (client)
        parts.push(`The client of the explanation is in ${route.region || 'a known place'}; the thick line leads to the first candidate.`);
    $('map-text').textContent = parts.join(' ');
}

/** What is in one place stands beside one another. */
function spread(spots) {
    const taken = [];
    for (const spot of spots) {
        while (taken.some(([x, y]) => Math.hypot(x - spot.at[0], y - spot.at[1]) < 14)) spot.at = [spot.at[0] + 16, spot.at[1]];
        taken.push(spot.at);
    }
}

/** Marks with their names where there is room for them; a name that has none is in the mark's title. */
function labelled(marks, width, height) {
    const boxes = marks.map(({ at: [x, y] }) => [x - 9, y - 9, x + 9, y + 9]);
    const isFree = ([a, b, c, d]) =>
        a >= 0 && b >= 0 && c <= width && d <= height && boxes.every(([e, f, g, h]) => c < e || g < a || d < f || h < b);
    return marks.map(({ name, state, at: [x, y] }) => {
        const group = svg('g', { class: `s-${markName(state)}` });
        group.append(
            svg('title', {}, document.createTextNode(`${name}: ${word(state)}`)),
            svg('circle', { class: 'halo', cx: x, cy: y, r: 9.5 }),
            svg('use', { href: `#m-${markName(state)}`, x: x - 8, y: y - 8, width: 16, height: 16 }),
        );
        const short = name.length > 24 ? `${name.slice(0, 23)}…` : name;
        const long = short.length * 6.8;
        const tries = [
            [x + 11, y + 4, 'start'],
            [x - 11, y + 4, 'end'],
            [x, y - 13, 'middle'],
            [x, y + 21, 'middle'],
            [x + 11, y + 18, 'start'],
            [x + 11, y - 10, 'start'],
        ];
        for (const [tx, ty, anchor] of tries) {
            const left = anchor === 'start' ? tx : anchor === 'end' ? tx - long : tx - long / 2;
            const box = [left, ty - 11, left + long, ty + 3];
            if (!isFree(box)) continue;
            boxes.push(box);
            group.append(svg('text', { x: tx, y: ty, 'text-anchor': anchor }, document.createTextNode(short)));
            break;
        }
        return group;
    });
}

/** Lines from the client to those that are answered with, the short way round the world. */
function routes(client, spots, width) {
    return route.answered.flatMap((name, rank) => {
        const spot = spots.find(of => of.name === name);
        if (!spot) return [];
        const line = (from, to) =>
            svg('line', {
                class: rank === 0 ? 'first' : 'later',
                x1: client.at[0] + from,
                y1: client.at[1],
                x2: spot.at[0] + to,
                y2: spot.at[1],
            });
        const apart = spot.at[0] - client.at[0];
        if (Math.abs(apart) <= width / 2) return [line(0, 0)];
        const round = apart > 0 ? width : -width;
        return [line(0, -round), line(round, 0)];
    });
}

// ---- services

let services = null;
/** The open service as the list has it, and its explanation. */
let open = null;

const servicesFeed = new Feed(EVERY.services, async signal => {
    const asked = { search: look.search, only: look.only, cluster: look.cluster };
    const found = await ask('/services', { ...asked, offset: look.from, limit: PAGE }, signal);
    if (found.services.length === 0 && found.matching > 0 && Number(look.from) > 0) {
        write({ from: '' });
        return servicesFeed.run();
    }
    services = found;
    services.asked = asked;
    if (look.service && !found.services.some(isOpen)) {
        const [namespace, name] = look.service.split('/');
        const near = await ask('/services', { search: `${name}.${namespace}`, limit: 100 }, signal);
        services.pinned = near.services.find(isOpen) ?? { namespace, name: name ?? '', state: 'gone', clusters: [] };
    }
    showServices();
});
servicesFeed.refused = message => {
    $('count').replaceChildren(el('span.error', {}, `The server says: ${message}`));
    $('list').replaceChildren();
    $('pages').hidden = true;
};

const keyOf = service => `${service.namespace}/${service.name}`;
const isOpen = service => keyOf(service) === look.service;

function showServices() {
    if (!services) return;
    const { total, matching, complete, asked } = services;
    const shown = services.services;
    const first = Number(look.from) || 0;
    const isFiltered = asked.search || asked.only || asked.cluster;
    const found = complete ? plural(matching, 'service') : `at least ${plural(matching, 'service')}`;
    const text = isFiltered ? `${found} of ${count(total)} ${matching === 1 ? 'matches' : 'match'}` : found;
    const more = complete ? '' : '; there are so many that the server stopped counting';
    if ($('count').textContent !== text + more) $('count').textContent = text + more;

    const pinned = look.service && !shown.some(isOpen) && services.pinned && isOpen(services.pinned) ? [services.pinned] : [];
    const rows = [...pinned.map(service => ({ ...service, note: 'not on this page of the list' })), ...shown];
    sync(
        $('list'),
        rows.map(service => ({ ...service, open: isOpen(service) })),
        keyOf,
        serviceRow,
    );

    $('pages').hidden = matching <= PAGE && first === 0;
    $('page').textContent = shown.length ? `${count(first + 1)} to ${count(first + shown.length)}` : '';
    $('previous').disabled = first === 0;
    $('next').disabled = (first + shown.length >= matching && complete) || shown.length < PAGE;
    markOpen();
    if (!performance.getEntriesByName('first list').length) performance.mark('first list');
}

function serviceRow(service, before) {
    const node = before ?? el('li', {}, el('div.head', {}), el('ul.chips', {}));
    const [head, chips] = ['.head', '.chips'].map(part => node.querySelector(`:scope > ${part}`));
    if (!before) {
        const button = el(
            'button',
            { type: 'button', 'aria-expanded': 'false', onclick: () => toggle(keyOf(service)) },
            service.name,
            el('span', {}, `.${service.namespace}`),
        );
        head.append(el('h3', {}, button), el('span'));
        chips.setAttribute('aria-label', `Clusters of ${service.name}.${service.namespace}`);
    }
    head.lastChild.replaceWith(service.state === 'gone' ? badge('unknown', 'no such service') : badge(service.state));
    node.querySelector('.note')?.remove();
    if (service.note) head.after(el('p.note', {}, service.note));
    chips.replaceChildren(...service.clusters.map(chip));
    chips.hidden = service.clusters.length === 0;
    node.classList.toggle('open', service.open);
    node.querySelector('button').setAttribute('aria-expanded', String(service.open));
    return node;
}

function chip(share) {
    const notes = [];
    if (share.state !== 'fine') notes.push(word(share.state));
    const probed = share.up + share.suspect + share.down + share.unknown;
    if (share.down || share.suspect) {
        notes.push(
            `${[
                [share.down, 'down'],
                [share.suspect, 'suspect'],
            ]
                .filter(([n]) => n)
                .map(([n, what]) => `${n} ${what}`)
                .join(', ')} of ${probed}`,
        );
    }
    if (share.load !== null && share.load !== undefined) notes.push(`load ${percent(share.load)}`);
    if (share.shifted > 0 && share.state !== 'drained') notes.push(`${percent(share.shifted)} sent elsewhere`);
    if (Number.isInteger(share.pods)) notes.push(`headless, ${plural(share.pods, 'pod')}`);
    if (share.exposure === 'clusterOnly') notes.push('inside only');
    const label = el(`span.s-${markName(share.state)}`, { title: STATES[share.state]?.[1] }, mark(share.state));
    return el(
        'li',
        {},
        label,
        el(share.cluster.length < 30 ? 'span.short' : 'span', {}, share.cluster),
        notes.length ? el('small', {}, notes.join(', ')) : el('span.hidden', {}, 'fine'),
    );
}

function toggle(key) {
    if (look.service === key) return close();
    write({ service: key, seen: '', kind: '' }, true);
    opened();
}

/** After `look.service` became another one. */
function opened() {
    open?.node.remove();
    open = null;
    showServices();
    if (look.service) {
        const isListed = [...(services?.services ?? []), ...(services?.pinned ? [services.pinned] : [])].some(isOpen);
        if (!isListed) servicesFeed.run();
        explanationFeed.run();
    }
}

function close() {
    const button = rowOf(look.service)?.querySelector('button');
    open?.node.remove();
    open = null;
    write({ service: '', seen: '', kind: '' }, true);
    showServices();
    if (button?.isConnected) button.focus();
}

const rowOf = key => [...$('list').children].find(node => node.dataset.key === key);

/** The details stand in the row of their service, wherever that is. */
function markOpen() {
    if (!look.service || !status) return;
    const node = rowOf(look.service);
    if (!node) return;
    if (!open) {
        const redo = () => {
            write({ seen: open.seen.value, kind: open.kind.value });
            explanationFeed.run();
        };
        open = {
            seen: el('select', { onchange: redo }),
            kind: el('select', { onchange: redo }),
            body: el('div.scope', {}, el('p.hint', {}, 'Asking the server')),
            sign: '',
        };
        const more = el(
            'button',
            {
                type: 'button',
                onclick: () => {
                    const [namespace, name] = look.service.split('/');
                    write({ name: `${name}.${namespace}.${serviceZone()}`, type: look.kind, in: look.seen, client: '', subnet: '' }, true);
                    fillForms();
                    explainForm(true);
                },
            },
            'Explain for one client',
        );
        open.node = el(
            'div.detail',
            {},
            el('div.controls', {}, el('label', {}, 'Asked from', open.seen), el('label', {}, 'Type', open.kind), more),
            open.body,
        );
        options(
            open.kind,
            ['', 'AAAA', 'SRV'].map(type => [type, type || 'A']),
            look.kind,
        );
    }
    options(open.seen, askers(), look.seen || askers()[0][0]);
    if (open.node.parentNode !== node) node.append(open.node);
}

const explanationFeed = new Feed(EVERY.explanation, async signal => {
    if (!look.service || !status) return;
    const key = look.service;
    const [namespace, name] = key.split('/');
    let made;
    try {
        const asked = { name: `${name}.${namespace}.${serviceZone()}`, type: look.kind || 'A', cluster: look.seen || askers()[0][0] };
        made = await ask('/explain', asked, signal);
    } catch (error) {
        if (!(error instanceof Refused)) throw error;
        made = error.message;
    }
    markOpen();
    if (!open || look.service !== key) return;
    const item = [...(services?.services ?? []), services?.pinned].find(service => service && isOpen(service));
    const sign = JSON.stringify([made, item]);
    const selection = getSelection();
    const isBeingRead = open.sign && !selection.isCollapsed && open.body.contains(selection.anchorNode);
    if (open.sign === sign || isBeingRead) return;
    open.sign = sign;
    swap(open.body, typeof made === 'string' ? [el('p.error', {}, `The server says: ${made}`)] : explanation(made, item));
});

// ---- an explanation

const CANDIDATE_HEADS = ['Cluster', 'Band', 'Distance', 'Weight', 'Sent on', 'Ready', 'Addresses', 'Why'];

/** `item`: the service as the list has it, if it is known, for loads. */
function explanation(of, item) {
    const box = [];
    const { place, service, answer } = of;
    box.push(
        pairs([
            ['Question', `${of.asked.name} ${of.asked.type}`],
            ['View', `${of.view} (${of.viewBy})`],
            ['Client', place ? placeText(place) : null],
            ['Zone', of.zone ?? 'none of ours'],
            ['Service', service ? `${service.name}, ${service.families.join(' and ') || 'no address'}, TTL ${service.ttl} s` : null],
        ]),
    );
    for (const { cluster, heardSeconds, silent, snapshot } of service?.freshness ?? []) {
        if (snapshot)
            box.push(
                el(
                    'p',
                    {},
                    badge('stale'),
                    ` ${cluster} was not heard since the start: it is answered for as its snapshot of `,
                    time(snapshot),
                    ' has it.',
                ),
            );
        else if (silent) box.push(el('p', {}, badge('silent'), ` ${cluster} was heard ${age(heardSeconds)} ago.`));
    }
    if (service?.loads?.length) {
        box.push(
            el('h4', {}, 'What clusters say of load'),
            el(
                'ul.loads',
                {},
                service.loads.map(told => el('li', {}, loadText(told))),
            ),
        );
    }
    if (service?.directives?.length) {
        box.push(
            el('h4', {}, 'What operators said'),
            el(
                'ul.directives',
                {},
                service.directives.map(directive => el('li', {}, directiveText(directive))),
            ),
        );
    }
    if (service) {
        const marked = service.candidates.some(share => answeredOf(share).length);
        const caption = `Candidates, the best first${marked ? '; addresses marked with * are in this answer' : ''}`;
        const loads = new Map((item?.clusters ?? []).filter(share => share.load !== null).map(share => [share.cluster, share.load]));
        const heads = loads.size ? [...CANDIDATE_HEADS.slice(0, 4), 'Load', ...CANDIDATE_HEADS.slice(4)] : CANDIDATE_HEADS;
        const rows = service.candidates.map(share => {
            const cells = [
                el('strong', {}, share.cluster),
                share.band === null ? 'none' : String(share.band),
                share.distance === null ? null : `${count(share.distance)} km`,
                String(share.weight),
                share.overloaded ? [percent(share.shed / 100), ' ', badge('overloaded')] : percent(share.shed / 100),
                share.ready ? 'yes' : badge('empty', 'no'),
                givenOf(share).length
                    ? el(
                          'ul',
                          {},
                          givenOf(share).map(given => addressItem(given, answeredOf(share).includes(given))),
                      )
                    : null,
                share.reason,
            ];
            if (loads.size) cells.splice(4, 0, loadCell(loads.get(share.cluster)));
            return cells;
        });
        if (rows.length) box.push(table(caption, heads, rows));
        else box.push(el('p', {}, 'No cluster has something to answer with.'));
    }
    if (service?.health?.length) {
        box.push(
            el('h4', {}, 'Health'),
            table(
                'External addresses, as the voters judge them',
                ['Address', 'Cluster', 'Verdict', 'Probe', 'Votes'],
                service.health.map(judged => [
                    judged.endpoint,
                    judged.cluster,
                    badge(judged.health === 'up' ? 'fine' : judged.health, judged.health),
                    judged.probe,
                    judged.votes.length
                        ? el(
                              'ul',
                              {},
                              judged.votes.map(voted => el('li', {}, voteText(voted))),
                          )
                        : 'none',
                ]),
            ),
        );
    }
    const flags = [answer.rcode, answer.authoritative ? 'authoritative' : null, answer.truncated ? 'truncated' : null].filter(Boolean);
    box.push(el('h4', {}, `Answer: ${flags.join(', ')}`));
    const records = [
        ['', answer.answers],
        ['authority', answer.authority],
        ['additional', answer.additional],
    ]
        .filter(([, list]) => list.length)
        .flatMap(([title, list]) => [...(title ? [`; ${title}`] : []), ...list]);
    if (records.length) box.push(el('pre', { tabindex: '0', role: 'group', 'aria-label': 'Records of the answer' }, records.join('\n')));
    return box;
}

/** What a candidate gives: the names of its load balancers, where clients are told these, else its addresses. */
const givenOf = share => (share.aliases?.length ? share.aliases : share.addresses);
const answeredOf = share => [...share.answered, ...(share.answeredAliases ?? [])];

function addressItem(address, isAnswered) {
    const classes = ['li', ...(isAnswered ? ['answered'] : []), ...(address.length < 20 ? ['short'] : [])];
    return el(classes.join('.'), {}, isAnswered ? `${address}*` : address);
}

function spotText({ region, latitude, longitude }) {
    if (region) return region;
    return Number.isFinite(latitude) ? `${latitude}, ${longitude}` : 'a known place';
}

function placeText({ address, by, matched, scope }) {
    const where = matched
        ? `${spotText(matched)} (${address} is in ${matched.prefix}, by ${matched.by})`
        : `place not known (${address} is in no prefix that tells clusters apart)`;
    return `${where}, ${by}${scope === null ? '' : `, scope /${scope}`}`;
}

function loadCell(load) {
    if (load === null || load === undefined) return null;
    const bar = el('span');
    bar.style.width = `${Math.round(100 * Math.min(1, load))}%`;
    return [`${percent(load)} `, el('span.meter', { 'aria-hidden': 'true' }, bar)];
}

function loadText({ cluster, load, by, expiresSeconds }) {
    return `${cluster}: ${percent(load)}, by ${by}${expiresSeconds === null ? '' : `, for another ${age(expiresSeconds)}`}`;
}

function voteText({ cluster, vote, heardSeconds }) {
    if (cluster === null) return `this instance: ${vote}`;
    return heardSeconds === null ? `${cluster}: not heard` : `${cluster}: ${vote}, heard ${age(heardSeconds)} ago`;
}

// ---- the explain form

const formFeed = new Feed(EVERY.explanation, async signal => {
    if (!look.name || !status) return;
    const asked = { name: completed(look.name), type: look.type || 'A', client: look.client, cluster: look.in, subnet: look.subnet };
    showExplained(await ask('/explain', asked, signal));
});
formFeed.refused = message => {
    route = null;
    drawMap();
    const said = `The server says: ${message}`;
    if ($('explained').textContent !== said) $('explained').replaceChildren(el('p.error', { role: 'alert' }, said));
};

/** `SERVICE.NAMESPACE` → with the zone. */
function completed(name) {
    const words = name.trim().split('.');
    return words.length === 2 && words.every(Boolean) && serviceZone() ? `${words.join('.')}.${serviceZone()}` : name.trim();
}

let explainedSign = '';
let isAsked = false;

function showExplained(made) {
    const sign = JSON.stringify(made);
    const selection = getSelection();
    const isBeingRead = !isAsked && !selection.isCollapsed && $('explained').contains(selection.anchorNode);
    const isSame = sign === explainedSign && $('explained').querySelector('h3');
    const answered = (made.service?.candidates ?? []).filter(share => answeredOf(share).length);
    if (!isSame && !isBeingRead) {
        explainedSign = sign;
        const title = el('h3', { tabindex: '-1' }, 'Why it is so');
        swap($('explained'), [title, ...explanation(made, null)]);
        route = { place: made.place?.matched, region: made.place?.matched?.region, answered: answered.map(share => share.cluster) };
        drawMap();
    }
    if (isAsked) say(`${made.answer.rcode}; answered with: ${answered.map(share => share.cluster).join(', ') || 'no cluster'}.`);
    isAsked = false;
}

/** `byHand`: somebody asked just now, and looks for the outcome. */
function explainForm(byHand) {
    isAsked = byHand;
    if (!look.name) {
        formFeed.controller?.abort();
        explainedSign = '';
        $('explained').replaceChildren();
        route = null;
        drawMap();
        return;
    }
    if (byHand) $('explain').scrollIntoView({ block: 'nearest' });
    formFeed.run();
}

// ---- changes

let changes = [];
let lastChange = null;
let changesShown = CHANGES_SHOWN;

const changesFeed = new Feed(EVERY.changes, async signal => {
    let found = await ask('/changes', { after: lastChange ?? 0 }, signal);
    const isNew = lastChange !== null && found.last !== lastChange;
    // The server was started again: its numbers begin anew.
    if (lastChange !== null && found.last < lastChange) {
        changes = [];
        found = await ask('/changes', { after: 0 }, signal);
    }
    changes = changes.concat(found.changes.map(change => ({ ...change, isNew }))).slice(-CHANGES_KEPT);
    lastChange = found.last;
    showChanges();
    if (!isNew) return;
    [servicesFeed, explanationFeed, formFeed].forEach(feed => feed.soon());
    if (found.changes.length === 1) say(`Change: ${changeText(found.changes[0])}`);
    else if (found.changes.length) say(`${found.changes.length} changes; the last: ${changeText(found.changes.at(-1))}`);
});

changesFeed.refused = message => {
    $('no-changes').hidden = false;
    $('no-changes').textContent = message;
};

const changeText = change => [change.cluster, change.service, change.text].filter(Boolean).join(' ');

function showChanges() {
    const newest = changes.slice(-changesShown).reverse();
    $('no-changes').hidden = changes.length > 0;
    sync(
        $('change-list'),
        newest,
        change => String(change.number),
        change =>
            el(
                change.isNew ? 'li.new' : 'li',
                {},
                el('span.when', {}, time(change.time), ` ${KINDS[change.kind] ?? change.kind} `),
                change.cluster ? el('strong', {}, `${change.cluster} `) : null,
                change.service ? el('button.plain', { type: 'button', onclick: () => show(change.service) }, change.service) : null,
                change.service ? ' ' : null,
                change.text,
            ),
    );
    $('more-changes').hidden = changes.length <= changesShown;
}

/** Opens a service from elsewhere in the page. */
function show(key) {
    if (look.service !== key) {
        write({ service: key, seen: '', kind: '' }, true);
        opened();
    }
    const there = () => {
        const button = rowOf(key)?.querySelector('button');
        button?.scrollIntoView({ block: 'center' });
        button?.focus({ preventScroll: true });
    };
    if (rowOf(key)) there();
    else servicesFeed.run().then(there);
}

// ---- hands

function filterBy(changed) {
    write({ ...changed, from: '' });
    fillForms();
    servicesFeed.run();
    go('services');
}

function go(id) {
    $(id).scrollIntoView({ block: 'start' });
    $(`${id}-title`).focus({ preventScroll: true });
}

function fillForms() {
    $('search').value = look.search;
    for (const [id, key] of [
        ['only', 'only'],
        ['cluster', 'cluster'],
        ['q-cluster', 'in'],
    ]) {
        if (![...$(id).options].some(option => option.value === look[key])) $(id).append(el('option', { value: look[key] }, look[key]));
        $(id).value = look[key];
    }
    for (const [id, key] of [
        ['q-name', 'name'],
        ['q-type', 'type'],
        ['q-client', 'client'],
        ['q-subnet', 'subnet'],
    ])
        $(id).value = look[key];
}

let typing = null;
$('search').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
        write({ search: $('search').value.trim(), from: '' });
        servicesFeed.run();
    }, TYPING);
});
for (const id of ['only', 'cluster']) {
    $(id).addEventListener('change', () => {
        write({ [id]: $(id).value, from: '' });
        servicesFeed.run();
    });
}
$('filter').addEventListener('submit', event => event.preventDefault());
$('filter').addEventListener('reset', event => {
    event.preventDefault();
    write({ search: '', only: '', cluster: '', from: '' });
    fillForms();
    servicesFeed.run();
});
for (const [id, step] of [
    ['previous', -PAGE],
    ['next', PAGE],
]) {
    $(id).addEventListener('click', () => {
        write({ from: String(Math.max(0, Number(look.from) + step) || '') }, true);
        servicesFeed.run().then(() => go('services'));
    });
}
$('question').addEventListener('submit', event => {
    event.preventDefault();
    write(
        {
            name: $('q-name').value.trim(),
            type: $('q-type').value.trim(),
            in: $('q-cluster').value,
            client: $('q-client').value.trim(),
            subnet: $('q-subnet').value.trim(),
        },
        true,
    );
    explainForm(true);
});
$('forget').addEventListener('click', () => {
    write({ name: '', type: '', in: '', client: '', subnet: '' }, true);
    fillForms();
    explainForm(false);
    $('q-name').focus();
});
$('more-changes').addEventListener('click', () => {
    changesShown += 50;
    showChanges();
});
for (const link of document.querySelectorAll('[data-go]')) {
    link.addEventListener('click', event => {
        event.preventDefault();
        go(link.dataset.go);
    });
}
document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isWriting = event.target.matches?.('input, select, textarea');
    if (event.key === '/' && !isWriting) {
        event.preventDefault();
        $('search').focus();
        $('search').select();
    } else if (event.key === 'Escape' && look.service && !(event.target.matches?.('input') && event.target.value)) {
        event.preventDefault();
        close();
    }
});
window.addEventListener('popstate', () => {
    const before = look;
    look = readAddress();
    fillForms();
    if (before.service !== look.service) opened();
    else if (look.service) explanationFeed.run();
    if (['name', 'type', 'in', 'client', 'subnet'].some(key => before[key] !== look[key])) explainForm(false);
    if (['search', 'only', 'cluster', 'from'].some(key => before[key] !== look[key])) servicesFeed.run();
});

// ---- colours

const theme = $('theme');
try {
    theme.value = localStorage.getItem('signpost-theme') ?? '';
} catch {
    // Without storage the choice lasts as long as the page.
}
const paint = () => {
    document.documentElement.dataset.theme = theme.value;
};
theme.addEventListener('change', () => {
    paint();
    try {
        localStorage.setItem('signpost-theme', theme.value);
    } catch {
        // As above.
    }
});
paint();

// ---- start

$('words').append(
    ...Object.entries(STATES).flatMap(([state, [name, meaning]]) => [el('dt', {}, badge(state, name)), el('dd', {}, meaning)]),
);
fillForms();
new ResizeObserver(drawMap).observe($('map'));

const feeds = [statusFeed, changesFeed, servicesFeed, explanationFeed, formFeed];
const tick = () => {
    if (document.visibilityState !== 'visible') return;
    // While nobody answers, one question is enough to find out when somebody does.
    (reach.lostSince ? [statusFeed] : feeds).forEach(feed => feed.tick());
    if (reach.lostSince) showReach();
};
document.addEventListener('visibilitychange', tick);
setInterval(tick, 250);
statusFeed.run().then(() => {
    if (look.service) explanationFeed.run();
    if (look.name) explainForm(false);
});
servicesFeed.run();
changesFeed.run();
