//! Builds of the gateway that do not work, each in a way that a real release could.

use crate::registry::{Package, PackageFile};
use std::io;
use std::path::Path;

const ENTRY: &str = "dist/index.js";

/// What is wrong with a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A chunk that the entry imports was not packed: the process ends at once with module-not-found.
    LosesChunk,
    /// The process starts, listens and says that it is alive, but is never ready.
    NeverReady,
    /// Everything works until the process ends by itself, this many milliseconds after its start.
    EndsAfter(u64),
    /// It ends by itself as soon as it listens: what it does to its data at its start is done by then.
    EndsOnListening,
    /// The process ends with the code that means "starting again cannot help", as it does if it refuses its configuration or
    /// state. Its own validator does not say so before.
    EndsWith78,
    /// Everything works, but it tells another version than the package's.
    TellsVersion(&'static str),
}

/// Packs the gateway that lies in `tree` (a directory with a `package.json`) as another version of itself, with a
/// defect.
///
/// # Errors
/// If the tree cannot be read, or does not look like the gateway.
pub fn broken(tree: &Path, version: &str, defect: Defect) -> io::Result<Package> {
    let package = Package::from_directory(tree)?.as_version(version);
    let entry = package.files.iter().find(|file| file.path == ENTRY);
    let entry = entry.ok_or_else(|| io::Error::other(format!("{} has no {ENTRY}", tree.display())))?;
    Ok(match defect {
        Defect::LosesChunk => {
            let chunk = first_import(entry)?;
            package.without(&chunk)
        }
        Defect::NeverReady => package.file(ENTRY, NEVER_READY),
        Defect::EndsAfter(milliseconds) => {
            // Its other commands work: a validator that ended would be found before anything is stopped.
            let ends = format!("setTimeout(() => process.exit(7), {milliseconds});");
            let entry = preceded_by(&as_gateway(&ends), entry)?;
            package.file(ENTRY, entry)
        }
        Defect::EndsOnListening => {
            let entry = preceded_by(&as_gateway(ENDS_ON_LISTENING), entry)?;
            package.file(ENTRY, entry)
        }
        Defect::EndsWith78 => {
            let ends = "console.error('Config invalid: gateway.port'); process.exit(78);";
            let entry = preceded_by(&as_gateway(ends), entry)?;
            package.file(ENTRY, entry)
        }
        Defect::TellsVersion(other) => {
            // The gateway prefers this variable to its own package.json.
            let entry = preceded_by(&format!("process.env.OPENCLAW_VERSION = \"{other}\";\n"), entry)?;
            package.file(ENTRY, entry)
        }
    })
}

/// A line that does this if the gateway itself is started.
fn as_gateway(code: &str) -> String {
    format!("if (process.argv.includes(\"gateway\")) {{ {code} }}\n")
}

const ENDS_ON_LISTENING: &str = "const { Server } = process.getBuiltinModule('node:net'), { listen } = Server.prototype; \
    Server.prototype.listen = function (...words) { this.once('listening', () => process.exit(7)); return listen.apply(this, words); };";

/// Alive on the port that it is given, and nothing more.
const NEVER_READY: &str = r#"#!/usr/bin/env node
import http from "node:http";
const port = Number(process.argv[process.argv.indexOf("--port") + 1]);
const answer = (request, response) => {
  const alive = request.url === "/healthz" || request.url === "/health";
  response.writeHead(alive ? 200 : 503, { "content-type": "application/json" });
  response.end(JSON.stringify(alive ? { ok: true, status: "live" } : { ready: false, failing: ["startup"] }));
};
for (const host of ["127.0.0.1", "::1"]) http.createServer(answer).on("error", () => {}).listen(port, host);
process.on("SIGTERM", () => process.exit(0));
"#;

fn first_import(entry: &PackageFile) -> io::Result<String> {
    let text = String::from_utf8_lossy(&entry.content);
    let chunk = text.split_once("from \"./").and_then(|(_, rest)| rest.split_once('"'));
    let (chunk, _) = chunk.ok_or_else(|| io::Error::other(format!("{ENTRY} imports no chunk")))?;
    Ok(format!("dist/{chunk}"))
}

/// The entry with a line that runs before its own code (imports still run first).
fn preceded_by(line: &str, entry: &PackageFile) -> io::Result<String> {
    let text = std::str::from_utf8(&entry.content).map_err(io::Error::other)?;
    Ok(match text.strip_prefix("#!").and_then(|rest| rest.split_once('\n')) {
        Some((program, code)) => format!("#!{program}\n{line}{code}"),
        None => format!("{line}{text}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("dist")).unwrap();
        let write = |path: &str, text: &str| std::fs::write(tree.path().join(path), text).unwrap();
        write("package.json", "{\"name\":\"openclaw\",\"version\":\"1.0.0\"}");
        write("dist/index.js", "#!/usr/bin/env node\nimport { a } from \"./a-1.js\";\na();\n");
        write("dist/a-1.js", "export const a = () => {};\n");
        tree
    }

    fn text_of(package: &Package, path: &str) -> Option<String> {
        let file = package.files.iter().find(|file| file.path == path)?;
        Some(String::from_utf8(file.content.clone()).unwrap())
    }

    #[test]
    fn a_build_loses_the_chunk_that_its_entry_imports() {
        let tree = tree();
        let package = broken(tree.path(), "1.0.1", Defect::LosesChunk).unwrap();
        assert_eq!(package.version, "1.0.1");
        assert_eq!(package.manifest["version"], "1.0.1");
        assert_eq!(text_of(&package, "dist/a-1.js"), None);
        assert!(text_of(&package, "dist/index.js").unwrap().contains("./a-1.js"));
    }

    #[test]
    fn a_build_that_ends_by_itself_is_otherwise_the_real_one() {
        let tree = tree();
        let package = broken(tree.path(), "1.0.1", Defect::EndsAfter(1500)).unwrap();
        let entry = text_of(&package, "dist/index.js").unwrap();
        let lines: Vec<_> = entry.lines().collect();
        assert_eq!(lines[0], "#!/usr/bin/env node");
        assert!(lines[1].contains("1500"), "{entry}");
        assert_eq!(lines[2..], ["import { a } from \"./a-1.js\";", "a();"]);
    }

    #[test]
    fn a_tree_that_is_not_the_gateway_is_refused() {
        let tree = tree();
        std::fs::remove_file(tree.path().join("dist/index.js")).unwrap();
        broken(tree.path(), "1.0.1", Defect::NeverReady).unwrap_err();
    }
}
