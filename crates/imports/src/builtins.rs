//! The names of node's own modules, and what one particular node exports from them.

use std::collections::{BTreeMap, BTreeSet};

/// What a particular node exports from its own modules. Empty: nothing is known, and any name may be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builtins {
    names: BTreeMap<String, BTreeSet<String>>,
}

impl Builtins {
    /// A script for `node -e`; [`Builtins::told`] reads what it prints. It loads node's own modules and nothing else.
    pub const QUESTION: &str = "const m=require('node:module').builtinModules.map(n=>n.replace(/^node:/,''));\
        const o={};for(const n of m){try{o[n]=Object.keys(require('node:'+n))}catch{}}\
        process.stdout.write(JSON.stringify(o))";

    /// Reads what a node answered to [`Builtins::QUESTION`]; `None` if that is no answer.
    #[must_use]
    pub fn told(answer: &[u8]) -> Option<Builtins> {
        let names: BTreeMap<String, BTreeSet<String>> = serde_json::from_slice(answer).ok()?;
        names.contains_key("fs").then_some(Builtins { names })
    }

    /// Whether a module of node's own is known to lack a name.
    pub(crate) fn lacks(&self, specifier: &str, name: &str) -> bool {
        let module = specifier.strip_prefix("node:").unwrap_or(specifier);
        let is_whole = matches!(name, "default" | "module.exports");
        !is_whole && self.names.get(module).is_some_and(|names| !names.contains(name))
    }

    /// Whether a module is known to be there.
    pub(crate) fn has(&self, module: &str) -> bool {
        self.names.contains_key(module)
    }
}

/// Names that need no prefix, in the order of the alphabet. From node's document "Modules: `node:module` API",
/// `module.builtinModules`, of versions 20 to 24.
const BARE: &[&str] = &[
    "_http_agent",
    "_http_client",
    "_http_common",
    "_http_incoming",
    "_http_outgoing",
    "_http_server",
    "_stream_duplex",
    "_stream_passthrough",
    "_stream_readable",
    "_stream_transform",
    "_stream_wrap",
    "_stream_writable",
    "_tls_common",
    "_tls_wrap",
    "assert",
    "assert/strict",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "dns/promises",
    "domain",
    "events",
    "fs",
    "fs/promises",
    "http",
    "http2",
    "https",
    "inspector",
    "inspector/promises",
    "module",
    "net",
    "os",
    "path",
    "path/posix",
    "path/win32",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "readline",
    "readline/promises",
    "repl",
    "stream",
    "stream/consumers",
    "stream/promises",
    "stream/web",
    "string_decoder",
    "sys",
    "timers",
    "timers/promises",
    "tls",
    "trace_events",
    "tty",
    "url",
    "util",
    "util/types",
    "v8",
    "vm",
    "wasi",
    "worker_threads",
    "zlib",
];

/// Names that exist only with the prefix `node:`.
const PREFIXED: &[&str] = &["sea", "sqlite", "test", "test/reporters"];

/// Whether it is one without `node:` before it.
pub(crate) fn has_bare(name: &str) -> bool {
    BARE.binary_search(&name).is_ok()
}

/// Whether it is one with `node:` before it.
pub(crate) fn has(name: &str) -> bool {
    has_bare(name) || PREFIXED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(BARE.is_sorted());
    }
}
