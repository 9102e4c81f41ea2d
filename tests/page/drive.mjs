// Drives the status page in a real browser and fails with a sentence when it does not do what it should. tests/page.rs starts the
// server and runs this, with one argument in JSON:
//
//   url        of the page
//   modules    the folder in which `npm ci` was run
//   chromium   the browser
//   signpost   the program, for drains and for a restart
//   config     the configuration that the server runs with
//   server     its process id: it is stopped at the end
//   manifests  the folder of the cluster virginia
//   plain      how many services of the names service-N there are beside the few special ones
//   pictures   a folder for the pictures of the documentation, or null
//
// What the world has is told by tests/page.rs.

import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const given = JSON.parse(process.argv[2]);
const require = createRequire(join(given.modules, '/'));
const puppeteer = require('puppeteer-core');
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** For anything that is waited for, in milliseconds: far above what it takes on a machine that does other things too. */
const DEADLINE = 120_000;
/** For the first list, and for finding among all services, in milliseconds of the page's own work: how long it takes on a busy machine says
 * little, and is printed (`cargo test --test page -- --nocapture`). */
const FAST = 2_000;
const MARKUP = '<img src=x onerror="document.title=\'broken\'"><b>bold</b>';
const KINDS = [
    { scheme: 'light', width: 1280, height: 800 },
    { scheme: 'dark', width: 1280, height: 800 },
    { scheme: 'light', width: 360, height: 740 },
    { scheme: 'dark', width: 360, height: 740 },
];

const begun = Date.now();
const note = text => console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${text}`);

function check(is, what) {
    if (!is) throw new Error(what);
}

function command(...words) {
    execFileSync(given.signpost, [...words, '--config', given.config], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** A page of the browser with what is wrong with it. */
class Tab {
    constructor(page, kind) {
        Object.assign(this, { page, kind, name: `${kind.scheme}, ${kind.width} wide`, complaints: [], expected: null });
    }

    static async open(browser, kind) {
        const tab = new Tab(await browser.newPage(), kind);
        const { page } = tab;
        page.setDefaultTimeout(DEADLINE);
        tab.protocol = await page.createCDPSession();
        await tab.protocol.send('Performance.enable', { timeDomain: 'threadTicks' });
        const complain = text => {
            if (!tab.expected?.test(text)) tab.complaints.push(text);
        };
        page.on('console', message => {
            if (['error', 'warn', 'assert'].includes(message.type())) complain(`${message.text()} ${message.location().url ?? ''}`);
        });
        page.on('pageerror', error => complain(`${error.stack ?? error}`));
        await page.evaluateOnNewDocument(() => {
            document.addEventListener('securitypolicyviolation', event =>
                console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`),
            );
        });
        await page.setViewport({ width: kind.width, height: kind.height });
        await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: kind.scheme }]);
        return tab;
    }

    /** Until `is` is so in the page, which gets `values`. */
    async until(what, is, ...values) {
        try {
            await this.page.waitForFunction(is, { timeout: DEADLINE, polling: 50 }, ...values);
        } catch (error) {
            const shown = await this.page.evaluate(() => document.body.innerText.slice(0, 3000)).catch(() => '');
            // The end of what is said is what .ci/run shows.
            throw new Error(`The page says:\n${shown}\n${this.name}: not within ${DEADLINE} ms: ${what} (${error.message})`);
        }
    }

    has(what, selector, text) {
        return this.until(
            what,
            (selector, text) => [...document.querySelectorAll(selector)].some(node => node.innerText.includes(text)),
            selector,
            text,
        );
    }

    hasNot(what, selector, text) {
        return this.until(
            what,
            (selector, text) => ![...document.querySelectorAll(selector)].some(node => node.innerText.includes(text)),
            selector,
            text,
        );
    }

    /** Processor time of the page's main thread, in milliseconds. */
    async work() {
        const { metrics } = await this.protocol.send('Performance.getMetrics');
        return 1000 * metrics.find(metric => metric.name === 'TaskDuration').value;
    }

    /** Goes to the page and waits for its first list; in front, since a browser may give little time to what nobody sees. */
    async visit() {
        await this.page.bringToFront();
        await this.page.goto(given.url);
        await this.until('a list', () => document.querySelector('#list > li') && document.querySelector('#cluster-table tbody tr'));
    }

    async fill(selector, text) {
        await this.page.$eval(selector, node => {
            node.value = '';
        });
        await this.page.type(selector, text);
    }

    /** What the accessibility checker finds; and nothing is wider than the window. */
    async judge(state) {
        const found = await this.violations();
        const text = found.map(({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map(node => node.html).join(' ')}`).join('\n');
        check(found.length === 0, `${this.name}, ${state}: the accessibility checker says:\n${text}`);
        const beyond = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        check(beyond <= 0, `${this.name}, ${state}: the page is ${beyond} px wider than the window`);
        this.quiet(state);
        note(`${this.name}: ${state} is right`);
    }

    async violations() {
        await this.page.evaluate(source => {
            if (!window.axe) (0, eval)(source);
        }, AXE);
        return this.page.evaluate(async () => (await window.axe.run(document, { resultTypes: ['violations'] })).violations);
    }

    quiet(state) {
        check(this.complaints.length === 0, `${this.name}, ${state}: the browser complains:\n${this.complaints.join('\n')}`);
    }

    /** What is done meanwhile may make the browser write this. */
    async expecting(pattern, what) {
        this.expected = pattern;
        await what();
        this.expected = null;
    }

    async picture(name, options) {
        if (given.pictures) await this.page.screenshot({ path: join(given.pictures, `page-${name}.png`), ...options });
    }
}

const times = { list: [], search: [] };
const special = 4;

/** `isWhole`: with what is the same at every size and in every colour. */
async function drive(tab, isFirst, isWhole) {
    const { page, kind } = tab;
    const isNarrow = kind.width < 640;
    const perPage = isNarrow ? 30 : 100;

    // The first list, with all services.
    await tab.visit();
    const list = await page.evaluate(() => performance.getEntriesByName('first list')[0].startTime);
    times.list.push({ took: list, work: await tab.work() });
    const all = given.plain + special;
    await tab.has('the count of all', '#count', `${all.toLocaleString('en')} services`);
    check((await page.$$eval('#list > li', rows => rows.length)) === perPage, `${tab.name}: a page of the list has ${perPage} services`);
    for (const name of ['virginia', 'ireland', 'tokyo']) {
        await tab.has(`${name} in the table`, '#cluster-table tbody tr', name);
        await tab.until(
            `${name} on the map`,
            name => [...document.querySelectorAll('#marks title')].some(title => title.textContent.startsWith(`${name}:`)),
            name,
        );
    }
    await tab.has('three synced clusters', '#facts', '3 of 3 synced');
    await tab.has('that it is live', '#live', 'Live');
    const ground = await page.$eval('body', node => getComputedStyle(node).backgroundColor);
    const [red] = ground.match(/\d+/g).map(Number);
    check(kind.scheme === 'dark' ? red < 64 : red > 192, `${tab.name}: the ground is ${ground}`);
    if (isFirst) await tab.judge('the whole list');
    await tab.picture(
        `${isNarrow ? 'phone' : 'wide'}-${kind.scheme}`,
        isNarrow ? {} : { clip: { x: 0, y: 0, width: kind.width, height: 1000 } },
    );

    // By keyboard: search.
    await page.keyboard.press('/');
    check((await page.evaluate(() => document.activeElement.id)) === 'search', `${tab.name}: / leads to the search`);
    await page.keyboard.type('service-499');
    await tab.has('eleven services', '#count', `11 services of ${all.toLocaleString('en')} match`);
    check((await page.$$eval('#list > li', rows => rows.length)) === 11, `${tab.name}: eleven rows`);
    check(page.url().includes('search=service-499'), `${tab.name}: the search is in the address: ${page.url()}`);
    const before = await tab.work();
    const found = await page.evaluate(
        () =>
            new Promise(done => {
                const [search, count] = ['search', 'count'].map(id => document.getElementById(id));
                const began = performance.now();
                new MutationObserver((_, observer) => {
                    if (!/^1 service of/.test(count.innerText)) return;
                    observer.disconnect();
                    done(performance.now() - began);
                }).observe(count, { childList: true, characterData: true, subtree: true });
                search.value = 'service-4321';
                search.dispatchEvent(new Event('input'));
            }),
    );
    times.search.push({ took: found, work: (await tab.work()) - before });

    // Filters.
    await page.click('#clear');
    await tab.has('all again', '#count', `${all.toLocaleString('en')} services`);
    check((await page.$eval('#search', node => node.value)) === '', `${tab.name}: the search is empty`);
    await page.select('#only', 'down');
    await tab.has('one that is down', '#count', '1 service of');
    await tab.has('the one that is down', '#list', 'cart.shop');
    if (isWhole) await filters(tab, perPage, all);
    else {
        await page.click('#clear');
        await tab.has('all again', '#count', `${all.toLocaleString('en')} services`);
    }

    // One service, by keyboard: candidates in order, verdicts, votes, load.
    await tab.fill('#search', 'cart.shop');
    await tab.has('one service', '#count', '1 service of');
    await page.focus('#list button');
    await page.keyboard.press('Enter');
    await tab.has('candidates', '.detail caption', 'Candidates, the best first');
    check(
        (await page.$eval('#list button', node => node.getAttribute('aria-expanded'))) === 'true',
        `${tab.name}: the button says that it is open`,
    );
    await tab.has('the load', '.detail tbody tr', '82 %');
    await tab.has('a verdict of what answers', '.detail tbody tr', 'up');
    await tab.has('a verdict of what does not', '.detail tbody tr', 'down');
    await tab.has('a vote', '.detail tbody tr', 'this instance: down');
    check(page.url().includes('service=shop%2Fcart'), `${tab.name}: the service is in the address: ${page.url()}`);
    await page.$eval('#services', node => node.scrollIntoView());
    await tab.picture(`service-${isNarrow ? 'phone' : 'wide'}-${kind.scheme}`);

    // A drain is seen live, everywhere, and its reason is text.
    const began = Date.now();
    // The pictures are of the dark pages.
    const reason = kind.scheme === 'dark' ? 'new racks' : MARKUP;
    command('drain', 'ireland', '--reason', reason);
    await tab.has('a drained cluster', '#cluster-table tbody tr', 'drained');
    note(`${tab.name}: a drain was seen after ${Date.now() - began} ms, the command included`);
    await tab.has('the drain among the changes', '#change-list li', 'ireland');
    await tab.has('the drain among what operators said', '#directives', reason);
    await tab.has('the drain in the open service', '.detail .directives', reason);
    await tab.has('the drain in the list', '#list .chips', 'drained');
    check((await page.$('img, b')) === null, `${tab.name}: a reason became markup`);
    check((await page.title()) === 'Signpost', `${tab.name}: the title is ${await page.title()}`);
    await tab.judge('an open service, and a drained cluster');
    if (!isNarrow) await page.evaluate(() => scrollTo(0, 0));
    await tab.picture(
        `drained-${isNarrow ? 'phone' : 'wide'}-${kind.scheme}`,
        isNarrow ? {} : { clip: { x: 0, y: 0, width: kind.width, height: 1300 } },
    );
    command('undrain', 'ireland');
    await tab.hasNot('a cluster that is not drained any more', '#cluster-table tbody tr', 'drained');

    if (isWhole) await addresses(tab);
    await page.focus('#list button');
    await page.keyboard.press('Escape');
    await tab.until('a closed service', () => !document.querySelector('.detail'));
    check((await page.evaluate(() => document.activeElement.innerText)) === 'cart.shop', `${tab.name}: the focus is on the closed service`);

    // The explain form.
    await tab.fill('#q-name', 'cart.shop');
    await tab.fill('#q-client', '192.0.2.7');
    await page.keyboard.press('Enter');
    await tab.has('an explanation', '#explained dd', 'new-york');
    await tab.has('an answer', '#explained pre', 'IN A 104.16.1.1');
    await tab.until('the nearest one first', () => document.querySelector('#explained tbody th')?.innerText === 'virginia');
    await tab.until('the client on the map', () => document.querySelector('#marks .s-client') && document.querySelector('#routes .first'));
    await tab.judge('an explanation');
    await page.$eval('#explain', node => node.scrollIntoView());
    await tab.picture(`explain-${isNarrow ? 'phone' : 'wide'}-${kind.scheme}`);
    if (isWhole) await questions(tab);
    tab.quiet('at the end');
    // It asks nothing while others are looked at.
    await page.goto('about:blank');
}

async function filters(tab, perPage, all) {
    const { page } = tab;
    await page.select('#only', 'trouble');
    await tab.has('those in trouble', '#count', '3 services of');
    await page.select('#only', '');
    await page.select('#cluster', 'ireland');
    await tab.has('one that Ireland does not have is not there', '#count', `${(all - 1).toLocaleString('en')} services of`);
    await page.click('#clear');
    await page.click('#next');
    await tab.has('the second page', '#page', `${perPage + 1} to ${2 * perPage}`);
    await page.click('#previous');
    await tab.has('the first page', '#page', `1 to ${perPage}`);
}

/** What is in the address is there again after a reload, and by the way back. */
async function addresses(tab) {
    const { page } = tab;
    await page.reload();
    await tab.has('the open service after a reload', '.detail caption', 'Candidates, the best first');
    check((await page.$eval('#search', node => node.value)) === 'cart.shop', `${tab.name}: the search after a reload`);
    await page.keyboard.press('Escape');
    await tab.until('a closed service', () => !document.querySelector('.detail'));
    await page.goBack();
    await tab.has('the open service by the way back', '.detail caption', 'Candidates, the best first');
}

/** From inside, and questions that are refused. */
async function questions(tab) {
    const { page } = tab;
    await page.select('#q-cluster', 'virginia');
    await tab.fill('#q-client', '');
    await page.click('#question .main');
    await tab.has('the inside view', '#explained dd', 'internal to virginia');
    await tab.has('the clusterIP', '#explained pre', 'IN A 10.1.0.1');
    await tab.expecting(/status of 400/, async () => {
        for (const [field, text, said] of [
            ['#q-name', 'a..b', 'is not a name'],
            ['#q-name', MARKUP, 'is not a name'],
            ['#q-client', 'nowhere', 'client'],
        ]) {
            await tab.fill('#q-name', 'cart.shop');
            await tab.fill('#q-client', '');
            await tab.fill(field, text);
            await page.keyboard.press('Enter');
            await tab.has(`an error about ${text}`, '#explained .error', said);
        }
        await tab.judge('a bad question');
        await page.click('#forget');
        await tab.until('an empty form', () => document.querySelector('#explained').childNodes.length === 0);
    });
    check((await page.$('img, b')) === null, `${tab.name}: a name became markup`);
}

/** What needs to be looked at once. */
async function once(tab) {
    const { page } = tab;
    await tab.visit();
    // A new service comes into the list.
    const file = join(given.manifests, 'new.yaml');
    await page.click('#clear');
    await tab.fill('#search', 'brand-new');
    await tab.has('nothing of that name', '#count', '0 services of');
    writeFileSync(
        file,
        '{apiVersion: v1, kind: Service, metadata: {name: brand-new, namespace: shop}, spec: {type: LoadBalancer, clusterIP: 10.1.0.77,\n' +
            'ports: [{port: 80}]}, status: {loadBalancer: {ingress: [{ip: 104.16.1.77}]}}}\n',
    );
    await tab.has('a new service', '#list', 'brand-new.shop');
    rmSync(file);
    await tab.has('nothing of that name', '#count', '0 services of');
    await page.click('#clear');
    // Colours by choice, and remembered.
    const ground = () => page.$eval('body', node => getComputedStyle(node).backgroundColor);
    const before = await ground();
    await page.select('#theme', 'dark');
    check((await ground()) !== before, `dark by choice is ${before} still`);
    await page.reload();
    check((await ground()) !== before, 'the choice of colours is forgotten');
    await page.select('#theme', '');
    check((await ground()) === before, "the colours are as the system's again");
    // Nothing moves for those who do not want it.
    const moves = () =>
        page.evaluate(() => {
            const item = document.createElement('li');
            item.className = 'new';
            document.getElementById('change-list').append(item);
            const { animationName } = getComputedStyle(item);
            item.remove();
            return animationName;
        });
    check((await moves()) !== 'none', 'a new change is marked');
    await page.emulateMediaFeatures([{ name: 'prefers-reduced-motion', value: 'reduce' }]);
    check((await moves()) === 'none', 'a new change moves although nothing should');
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: tab.kind.scheme }]);
    // A hidden page asks nothing, and a page that is seen again asks at once.
    const see = state =>
        page.evaluate(state => {
            Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
            document.dispatchEvent(new Event('visibilitychange'));
        }, state);
    let asked = 0;
    page.on('request', () => {
        asked += 1;
    });
    const rest = time => new Promise(done => setTimeout(done, time));
    await see('hidden');
    // What was under way may ask on once. (`waitForNetworkIdle` would count what the reload cut off as under way, perhaps for ever.)
    for (let [turn, before] = [0, -1]; asked !== before && turn < 20; turn += 1) {
        before = asked;
        await rest(500);
    }
    asked = 0;
    await rest(2500);
    check(asked === 0, `a hidden page asked ${asked} times`);
    const request = page.waitForRequest(request => request.url().includes('/status'));
    await Promise.all([request, see('visible')]).catch(error => {
        throw new Error(`a page that is seen again asks nothing (${error.message})`);
    });
    // The names of the sections are reached by their links.
    await page.click('nav a[data-go="changes"]');
    check((await page.evaluate(() => document.activeElement.id)) === 'changes-title', 'a link leads to the changes');
    tab.quiet('what was looked at once');
}

/** The server goes, and comes back. */
async function without(tabs) {
    for (const tab of tabs) await tab.visit();
    process.kill(given.server, 'SIGTERM');
    for (const tab of tabs) {
        tab.expected = /ERR_CONNECTION_(REFUSED|RESET|CLOSED)|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED/;
    }
    for (const tab of tabs) {
        await tab.page.bringToFront();
        await tab.has('that the server is not reached', '#lost', 'cannot be reached since');
        await tab.has('how old it is', '#lost', ' old.');
        await tab.has('that it is not live', '#live', 'Not reached');
        check((await tab.page.$$eval('#cluster-table tbody tr', rows => rows.length)) === 3, `${tab.name}: what was known stays`);
        await tab.judge('without the server');
        await tab.page.evaluate(() => scrollTo(0, 0));
        await tab.picture(`lost-${tab.kind.width < 640 ? 'phone' : 'wide'}-${tab.kind.scheme}`);
    }
    const again = spawn(given.signpost, ['serve', '--config', given.config], { stdio: 'ignore' });
    try {
        for (const tab of tabs) {
            await tab.page.bringToFront();
            await tab.has('that it is live again', '#live', 'Live');
            await tab.until('no word about a lost server', () => document.querySelector('#lost').childNodes.length === 0);
            await tab.has('three synced clusters again', '#facts', '3 of 3 synced');
            tab.expected = null;
            tab.quiet('the server is back');
        }
    } finally {
        again.kill();
    }
}

/** The checks themselves can fail: what is wrong on purpose is found. */
async function canFail(tab) {
    await tab.page.bringToFront();
    await tab.page.evaluate(() => {
        document.querySelector('main').insertAdjacentHTML('beforeend', '<p style="color: red"></p><img src="data:," ><input>');
    });
    const found = (await tab.violations()).map(violation => violation.id);
    check(found.includes('image-alt') && found.includes('label'), `the accessibility checker overlooks what is wrong on purpose: ${found}`);
    check(
        tab.complaints.some(text => text.startsWith('policy: style-src')),
        `the policy lets styles through: ${tab.complaints}`,
    );
}

const browser = await puppeteer.launch({
    executablePath: given.chromium,
    headless: true,
    pipe: true,
    timeout: DEADLINE,
    protocolTimeout: 2 * DEADLINE,
    // As root there is no sandbox; the only page is ours.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--no-proxy-server', '--lang=en-US'],
});
let failed = null;
try {
    const tabs = [];
    for (const kind of KINDS) {
        const tab = await Tab.open(browser, kind);
        tabs.push(tab);
        await drive(tab, tabs.length === 1, tabs.length === 1 || tabs.length === KINDS.length);
        note(`${tab.name}: done`);
    }
    for (const [what, all] of Object.entries(times)) {
        const said = all.map(({ took, work }) => `${Math.round(took)} ms (${Math.round(work)} ms of work)`);
        note(`${what} with ${given.plain} services: ${said.join(', ')}`);
        const most = Math.max(...all.map(({ work }) => work));
        check(most > 0 && most < FAST, `${what}: ${most} ms of work, and not ${FAST}`);
    }
    await once(tabs[0]);
    await without(tabs);
    await canFail(tabs[0]);
    note('all done');
} catch (error) {
    failed = error;
}
await browser.close();
if (failed) {
    console.log(`FAILED: ${failed.message}`);
    process.exitCode = 1;
}
