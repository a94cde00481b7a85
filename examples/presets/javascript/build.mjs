// node build.mjs WIT OUT: makes the component.

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

const [wit, out] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath: fileURLToPath(new URL("acme.js", import.meta.url)),
  witPath: wit,
  worldName: "preset",
  // Without these it imports no WASI at all.
  disableFeatures: ["clocks", "fetch-event", "http", "random", "stdio"],
});
await writeFile(out, component);
