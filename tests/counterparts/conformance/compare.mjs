// Says where two runs of the suite differ: exit 0 when equal, 3 with the differences on stdout.
import { readFile } from 'node:fs/promises';

const [left, right] = process.argv.slice(2);
if (right === undefined) {
    console.error('usage: compare.mjs DIRECT.json THROUGH.json');
    process.exit(2);
}
const [a, b] = await Promise.all([left, right].map(async (file) => JSON.parse(await readFile(file, 'utf8'))));
const differences = [];
for (const name of new Set([...Object.keys(a.scenarios), ...Object.keys(b.scenarios)])) {
    const one = a.scenarios[name];
    const other = b.scenarios[name];
    if (one === undefined || other === undefined) {
        differences.push({ scenario: name, missing_in: one === undefined ? left : right });
        continue;
    }
    for (const id of new Set([...Object.keys(one.checks), ...Object.keys(other.checks)])) {
        const before = one.checks[id] ?? {};
        const after = other.checks[id] ?? {};
        if (['pass', 'fail', 'warn', 'skip'].every((key) => before[key] === after[key])) continue;
        const reasons = other.reasons.filter((reason) => reason.startsWith(`${id}:`));
        differences.push({ scenario: name, check: id, direct: before, through: after, reasons });
    }
}
for (const difference of differences) console.log(JSON.stringify(difference));
console.error(`${Object.keys(a.scenarios).length} scenarios, ${differences.length} differences`);
process.exit(differences.length === 0 ? 0 : 3);
