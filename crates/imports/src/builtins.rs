//! The names of node's own modules.

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
