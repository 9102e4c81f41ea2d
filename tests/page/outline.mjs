// Prints the outline of the land for the map of src/admin/page/body.html, in half degrees from 180° west and 90° north.
// It is run by hand, in a folder with what it needs:
//
//   npm install world-atlas@2.0.2 topojson-client@3.1.0 topojson-simplify@3.0.3 && node outline.mjs
//
// world-atlas has the data of Natural Earth (1:110 million), which are in the public domain.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { feature } = require('topojson-client');
const { presimplify, simplify } = require('topojson-simplify');

/** Square degrees: a corner of a smaller triangle is left out. */
const DETAIL = 0.3;
/** In half degrees: what is south of it is not on the map. */
const SOUTH = 296;
const WIDTH = 140;

const world = JSON.parse(readFileSync(require.resolve('world-atlas/land-110m.json')));
const land = feature(simplify(presimplify(world), DETAIL), 'land');
const geometries = land.features ? land.features.map(one => one.geometry) : [land.geometry];
const polygons = geometries.flatMap(of => (of.type === 'Polygon' ? [of.coordinates] : of.coordinates));

/** Without jumps: a ring over the date line goes beyond the map. */
function unwrapped(ring) {
    let turns = 0;
    return ring.map(([x, y], n) => {
        const step = n ? x - ring[n - 1][0] : 0;
        turns += step > 180 ? -360 : step < -180 ? 360 : 0;
        return [x + turns, y];
    });
}

function path(ring) {
    const points = ring.map(([x, y]) => [Math.round((x + 180) * 2), Math.round((90 - y) * 2)]);
    const kept = points.filter(([x, y], n) => n === 0 || x !== points[n - 1][0] || y !== points[n - 1][1]);
    if (kept.length < 4 || kept.some(([, y]) => y > 330)) return '';
    if (kept.every(([, y]) => y > SOUTH)) return '';
    const steps = kept.slice(1, -1).map(([x, y], n) => [x - kept[n][0], y - kept[n][1]]);
    const numbers = steps.flat().map((step, n) => (n && step >= 0 ? ` ${step}` : `${step}`));
    return `M${kept[0].join(' ')}l${numbers.join('')}z`;
}

let line = '';
for (const ring of polygons.flat().map(unwrapped)) {
    const [west, east] = [Math.min, Math.max].map(most => most(...ring.map(([x]) => x)));
    // What goes beyond one side of the map comes in at the other one.
    const turns = [0, ...(west < -180 ? [360] : []), ...(east > 180 ? [-360] : [])];
    for (const piece of turns.map(turn => path(ring.map(([x, y]) => [x + turn, y])))) {
        // A long ring is broken where two numbers are.
        for (const word of piece.split(/(?=[ M-])/)) {
            if (line.length + word.length > WIDTH) {
                console.log(line);
                line = word.trimStart();
            } else line += word;
        }
    }
}
console.log(line);
