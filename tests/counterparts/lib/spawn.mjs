// Starts a counterpart and waits for its ready line.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** Runs a program of this folder; gives its ready facts and a way to end it. */
export async function start(program, args = [], env = {}) {
    const child = spawn(process.execPath, [path.join(ROOT, program), ...args], {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: { ...process.env, COUNTERPART_STDIN: 'pipe', ...env }
    });
    const facts = await new Promise((resolve, reject) => {
        child.once('exit', (code) => reject(new Error(`${program} ended with ${code} before it was ready`)));
        createInterface({ input: child.stdout }).once('line', (line) => resolve(JSON.parse(line)));
    });
    return { ...facts, stop: () => child.kill() };
}

/** Runs a program to its end; gives its exit status and its JSON lines. */
export async function finish(command, args, env = {}) {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env } });
    const lines = [];
    createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line)));
    const status = await new Promise((resolve) => {
        child.once('close', resolve);
    });
    return { status, lines, of: (step) => lines.filter((line) => line.step === step) };
}
