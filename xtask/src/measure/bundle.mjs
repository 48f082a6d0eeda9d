// Links every program of the directories that are named, and writes nothing. Packages stay outside.
import { readdirSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { rolldown } from "rolldown";

const programs = (directory) =>
  readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return entry.name === "node_modules" ? [] : programs(path);
    return entry.isFile() && /\.[cm]?js$/.test(entry.name) ? [path] : [];
  });

const input = process.argv.slice(2).flatMap(programs);
const external = (id) => !id.startsWith(".") && !isAbsolute(id);
const bundle = await rolldown({ input, external, platform: "node", logLevel: "silent" });
const { output } = await bundle.generate({ format: "esm" });
console.log(`${input.length} files, ${output.length} chunks`);
