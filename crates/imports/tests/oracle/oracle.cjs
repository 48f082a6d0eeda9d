// Asks node itself what is wrong with a directory of modules, without evaluating any of them.
//
// Run as: node --expose-internals --experimental-vm-modules --no-warnings oracle.cjs
// Reads lines [directory, [entry, …]] in JSON. Prints one line for each, a list of { file, specifier, name, text } with
// files relative to the directory.
//
// A line [directory, [file, …], [[file, specifier, "import" | "require"], …]] links the files as they are, and asks where
// the specifiers lead: for trees that were not written for the expressions below.
//
// Modules are compiled and linked by `vm.SourceTextModule`; specifiers are resolved by the loader's own functions, and
// the names of CommonJS modules are read by the loader's own lexer. Only which specifiers and names stand in a text is
// read by the expressions below: they suffice for texts that are written for them.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");
const Module = require("node:module");
const { pathToFileURL, fileURLToPath } = require("node:url");
const { defaultResolve } = require("internal/modules/esm/resolve");
const { defaultGetFormat } = require("internal/modules/esm/get_format");
const { validateAttributes } = require("internal/modules/esm/assert");
const { internalBinding } = require("internal/test/binding");

// Where the lexer is depends on the version.
function lexed(text) {
  try {
    return require("internal/deps/cjs-module-lexer/lexer").parse(text);
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
  }
  return native(internalBinding("cjs_lexer").parse(text));
}

function native(parsed) {
  return Array.isArray(parsed) ? { exports: parsed[0], reexports: parsed[1] } : parsed;
}


let root;
let faults;
let seen;
let queue;

const WITH = String.raw`(?:\s*with\s*\{\s*type:\s*(['"])(.*?)\4\s*\})?`;
const CLAUSE = String.raw`((?:[^'";()]|"[^"\n]*"\s+as\b)*?)\s*\bfrom\s*`;
const STATIC = new RegExp(String.raw`^(?:import|export)\b(?:${CLAUSE}|\s*)(['"])(.*?)\2${WITH}`, "gm");
const DYNAMIC = /\bimport\(\s*(['"`])(.*?)\1\s*(?:,\s*\{\s*with:\s*\{\s*type:\s*(['"])(.*?)\3\s*\}\s*\})?\s*\)/g;
const REQUIRE = /(?<![\w.$])(?:require|load|createRequire\(import\.meta\.url\))(\.resolve)?\(\s*(['"`])(.*?)\2\s*\)/g;

function report(file, specifier, name, error) {
  const code = error.code && error.code !== "MODULE_NOT_FOUND" && error.name !== "SyntaxError" ? ` [${error.code}]` : "";
  const text = `${error.name}${code}: ${error.message.split("\n")[0]}`;
  faults.push({ file: path.relative(root, file), specifier, name, text });
}

function uncommented(text) {
  return text.replace(/^\s*\/\/.*$/gm, "").replace(/\/\*[^]*?\*\//g, (it) => it.replace(/[^\n]/g, ""));
}

function kindOf(file) {
  if (file.endsWith(".mjs")) return "module";
  if (file.endsWith(".cjs")) return "commonjs";
  if (file.endsWith(".json")) return "json";
  if (file.endsWith(".js")) {
    const type = typeAt(path.dirname(file));
    if (type) return type;
    try {
      new vm.Script(Module.wrap(fs.readFileSync(file, "utf8")), { filename: file });
      return "commonjs";
    } catch {
      return isModule(file) ? "module" : "commonjs";
    }
  }
  return "opaque";
}

function isModule(file) {
  try {
    new vm.SourceTextModule(fs.readFileSync(file, "utf8"));
    return true;
  } catch {
    return false;
  }
}

function typeAt(directory) {
  if (path.basename(directory) === "node_modules") return undefined;
  const manifest = path.join(directory, "package.json");
  if (fs.existsSync(manifest)) {
    try {
      return JSON.parse(fs.readFileSync(manifest, "utf8")).type;
    } catch {
      return undefined;
    }
  }
  const parent = path.dirname(directory);
  return parent === directory ? undefined : typeAt(parent);
}

// Throws what node would throw; answers with a file, or with nothing for what is not a file.
function imported(specifier, from, attributes) {
  const parentURL = pathToFileURL(from).href;
  const { url, format } = defaultResolve(specifier, { parentURL, importAttributes: attributes });
  if (url.startsWith("node:")) require(url);
  if (!url.startsWith("file:")) return undefined;
  const known = format ?? defaultGetFormat(new URL(url), { parentURL, importAttributes: attributes });
  validateAttributes(url, known, attributes);
  return fileURLToPath(url);
}

function required(specifier, from) {
  const file = Module.createRequire(from).resolve(specifier);
  return path.isAbsolute(file) ? file : undefined;
}

function attempt(from, specifier, find) {
  try {
    return find();
  } catch (error) {
    report(from, specifier, null, error);
    return undefined;
  }
}

function add(file) {
  if (file && !seen.has(file)) {
    seen.add(file);
    queue.push(file);
  }
}

// The names that the loader would find in a CommonJS module.
function names(file, visited = new Set()) {
  if (visited.has(file)) return visited;
  visited.add(file);
  const found = new Set(["default"]);
  let parsed;
  try {
    parsed = lexed(fs.readFileSync(file, "utf8"));
  } catch {
    return found;
  }
  for (const name of parsed.exports) found.add(name);
  for (const specifier of parsed.reexports) {
    try {
      const target = required(specifier, file);
      if (target && kindOf(target) === "commonjs" && !visited.has(target)) for (const name of names(target, visited)) found.add(name);
    } catch {
      // The loader passes over it too.
    }
  }
  return found;
}

function build(file, graph) {
  if (graph.has(file)) return graph.get(file);
  const kind = kindOf(file);
  const module =
    kind === "module"
      ? new vm.SourceTextModule(fs.readFileSync(file, "utf8"), { identifier: file })
      : new vm.SyntheticModule(kind === "commonjs" ? [...names(file)] : ["default"], () => {}, { identifier: file });
  graph.set(file, module);
  return module;
}

function outside(specifier) {
  const own = Module.isBuiltin(specifier) ? ["default", ...Object.keys(require(specifier))] : ["default"];
  return new vm.SyntheticModule([...new Set(own)], () => {}, { identifier: specifier });
}

// Links a text as if it stood in the file's directory; answers with the error, if there is one.
async function linked(text, from) {
  const graph = new Map();
  const module = new vm.SourceTextModule(text, { identifier: from });
  try {
    await module.link((specifier, referrer, { attributes }) => {
      const file = imported(specifier, referrer.identifier, attributes ?? {});
      return file ? build(file, graph) : outside(specifier);
    });
    return undefined;
  } catch (error) {
    return error;
  }
}

function taken(clause, isExport) {
  const braces = /\{([^}]*)\}/.exec(clause);
  const inside = (braces?.[1] ?? "").split(",").map((it) => it.trim()).filter(Boolean);
  const list = inside.map((it) => it.split(/\s+as\s+/)[0].trim());
  const before = clause.replace(/\{[^}]*\}/, "").split(",")[0].trim();
  if (!isExport && before && !before.startsWith("*")) list.unshift("default");
  return list;
}

async function statics(file, text) {
  for (const match of text.matchAll(STATIC)) {
    const specifier = match[3];
    const attributes = match[5] ? { type: match[5] } : {};
    const before = faults.length;
    const target = attempt(file, specifier, () => imported(specifier, file, attributes));
    add(target);
    if (faults.length > before || match[1] === undefined) continue;
    const suffix = match[5] ? ` with { type: ${JSON.stringify(match[5])} }` : "";
    const isBroken = await linked(`import ${JSON.stringify(specifier)}${suffix};`, file);
    for (const name of taken(match[1], match[0].startsWith("export"))) {
      const error = await linked(`import { ${name} as it } from ${JSON.stringify(specifier)}${suffix};`, file);
      // Where the other module is at fault itself, only an error that names this very place counts.
      if (error && isBroken && !(error.message.includes(`'${specifier}'`) && error.message.includes(`'${name}'`))) continue;
      if (error) report(file, specifier, name.replace(/^(['"])(.*)\1$/, "$2"), error);
    }
  }
}

async function visit(file) {
  const kind = kindOf(file);
  const text = kind === "opaque" ? "" : fs.readFileSync(file, "utf8");
  try {
    if (kind === "module") new vm.SourceTextModule(text, { identifier: file });
    if (kind === "commonjs") new vm.Script(Module.wrap(text), { filename: file });
    if (kind === "json") JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    report(file, "", null, error);
    return;
  }
  if (kind !== "module" && kind !== "commonjs") return;
  const code = uncommented(text);
  if (kind === "module") await statics(file, code);
  for (const match of code.matchAll(DYNAMIC)) {
    if (match[2].includes("${")) continue;
    const attributes = match[4] ? { type: match[4] } : {};
    add(attempt(file, match[2], () => imported(match[2], file, attributes)));
  }
  for (const match of code.matchAll(REQUIRE)) {
    const target = attempt(file, match[3], () => required(match[3], file));
    if (!match[1]) add(target);
  }
}

// Links real files, all in one graph. What is not found is replaced by something that has no names.
async function link(files) {
  const graph = new Map();
  const absent = new Set();
  const linker = (specifier, referrer, { attributes }) => {
    try {
      const file = imported(specifier, referrer.identifier, attributes ?? {});
      return file ? build(file, graph) : outside(specifier);
    } catch (error) {
      absent.add(specifier);
      report(referrer.identifier, specifier, null, error);
      return outside(specifier);
    }
  };
  for (const file of files) {
    if (kindOf(file) !== "module") continue;
    try {
      const module = build(file, graph);
      if (module.status === "unlinked") await module.link(linker);
    } catch (error) {
      if (![...absent].some((it) => error.message.includes(`'${it}'`))) report(file, "", "?", error);
    }
  }
}

function ask([file, specifier, rule]) {
  const find = { import: imported, require: required }[rule];
  attempt(file, specifier, () => find(specifier, file, {}));
}

async function main() {
  for (const line of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
    let entries, questions;
    [root, entries, questions] = JSON.parse(line);
    [faults, seen, queue] = [[], new Set(), []];
    if (questions) {
      await link(entries);
      questions.forEach(ask);
    } else {
      for (const entry of entries) add(path.join(root, entry));
      while (queue.length > 0) await visit(queue.shift());
    }
    console.log(JSON.stringify(faults));
  }
}

main();
