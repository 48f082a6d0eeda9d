//! A plugin of the gateway, as small as one can be: what matters is what it imports of its host.

use crate::registry::Package;
use serde_json::json;

/// Its package.
pub const PROGRESS_LINES: &str = "openclaw-progress-lines";
/// Its name in the gateway.
pub const PROGRESS_LINES_ID: &str = "progress-lines";
/// What both versions of the incident's pair export.
pub const SHARED_NAME: &str = "formatChannelProgressDraftLine";
/// What only the newer one exports: the name that the incident's plugin did not find.
pub const LATER_NAME: &str = "formatChannelProgressDraftLineForEntry";

/// A version of the plugin that imports this name of its host, from where the incident's imported it.
#[must_use]
pub fn progress_lines(version: &str, name: &str) -> Package {
    progress_lines_from(version, "channel-streaming", name)
}

/// The same for the module of the plugin interface that has the name: they differ between years.
#[must_use]
pub fn progress_lines_from(version: &str, module: &str, name: &str) -> Package {
    lines(version, module, name, &format!("console.log('{PROGRESS_LINES_ID}', typeof {name})"))
}

/// One that fits, and throws when it is asked to register: the gateway notes that in its log, and goes on without it.
#[must_use]
pub fn progress_lines_that_throw(version: &str, name: &str) -> Package {
    lines(version, "channel-streaming", name, "throw new Error('it does not register')")
}

fn lines(version: &str, module: &str, name: &str, register: &str) -> Package {
    let code = format!(
        "import {{ {name} }} from 'openclaw/plugin-sdk/{module}'\n\
         export default {{\n  id: '{PROGRESS_LINES_ID}',\n  name: 'Progress lines',\n  \
         register() {{ {register} }},\n}}\n"
    );
    let manifest = json!({
        "id": PROGRESS_LINES_ID,
        "name": "Progress lines",
        "activation": {"onStartup": true},
        "configSchema": {"type": "object", "additionalProperties": false, "properties": {}},
    });
    Package::new(PROGRESS_LINES, version)
        .field("type", json!("module"))
        .field("openclaw", json!({"extensions": ["./index.js"]}))
        .field("peerDependencies", json!({"openclaw": "*"}))
        .file("index.js", code)
        .file("openclaw.plugin.json", manifest.to_string())
}
