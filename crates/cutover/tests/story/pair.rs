//! An app that node runs, and its plugin, both from a registry.

use crate::stage::{executable, node, rewrite, unserved};
use cutover::demo::{Plan, World};
use cutover_testkit::registry::{Package, Registry};
use serde_json::json;

pub(crate) const PLUGIN: &str = "@toy/extra";
/// A plugin that not every version has beside it.
pub(crate) const SIDE: &str = "@toy/side";
/// Where in its state the app looks for its plugin, if it has a seat there.
pub(crate) const PROJECT: &str = "npm/projects/extra";

/// Loads the plugin from where its environment says, and tells which version of it that is.
pub(crate) const APP: &str = "import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { version, plugin } from './sdk.mjs';
const extra = await import(pathToFileURL(process.env.PLUGIN + '/index.mjs'));
const answer = JSON.stringify({ version, bootId: randomUUID(), plugins: [plugin(extra.version)] });
createServer((_, response) => response.end(answer)).listen(Number(process.argv[2]), '127.0.0.1');
";

/// How a version of the app tells its plugin: an expression of its `version`.
pub(crate) const WITH_VERSION: &str = "`extra@${version}`";
pub(crate) const BARE: &str = "'extra'";

pub(crate) fn app(version: &str, tells: &str) -> Package {
    let sdk = format!(
        "export const version = '{version}';\nexport const plugin = (version) => {tells};\n\
         export const format = String;\n"
    );
    Package::new("app", version)
        .field("type", json!("module"))
        .field("bin", json!("app.mjs"))
        .file("app.mjs", APP)
        .file("sdk.mjs", sdk)
}

/// A version of the plugin that imports this name of its host.
pub(crate) fn extra(version: &str, name: &str) -> Package {
    let code =
        format!("import {{ {name} }} from 'app/sdk.mjs';\nexport const version = {name}('{version}');\n");
    Package::new(PLUGIN, version)
        .field("type", json!("module"))
        .field("main", json!("index.mjs"))
        .field("peerDependencies", json!({ "app": "*" }))
        .file("index.mjs", code)
}

/// A world with 1.0.0 of both in its registry and no daemon yet. `service` are further lines of the service.
pub(crate) async fn published(service: &str) -> anyhow::Result<(World, Registry)> {
    let lines = format!(
        "env = {{ PLUGIN = \"{{plugin:{PLUGIN}}}\" }}\n\
         plugins = [{{ npm = \"{PLUGIN}\" }}, {{ npm = \"@toy/none\", policy = \"wanted\" }}]"
    );
    published_with(&format!("{lines}\n{service}")).await
}

/// The same for an app that takes its plugin from a project in its own state only.
pub(crate) async fn published_with_a_seat(service: &str) -> anyhow::Result<(World, Registry)> {
    let lines = format!(
        "state = [{{ path = \"{{world}}/data\", kind = \"files\" }}]\n\
         env = {{ PLUGIN = \"{{world}}/data/{PROJECT}/node_modules/{PLUGIN}\" }}\n\
         plugins = [{{ npm = \"{PLUGIN}\", project = \"{{world}}/data/{PROJECT}\" }}, \
         {{ npm = \"{SIDE}\", version = \"{{version}}\", policy = \"wanted\", project = \"{{world}}/data/npm/projects/side\" }}]"
    );
    published_with(&format!("{lines}\n{service}")).await
}

async fn published_with(service: &str) -> anyhow::Result<(World, Registry)> {
    let registry = Registry::start().await?;
    registry.publish(&app("1.0.0", WITH_VERSION));
    registry.publish(&extra("1.0.0", "format"));
    let world = unserved(Plan { service: service.to_owned(), ..Plan::new(executable()) }, &[])?;
    let version = "version = { http = \"/version\", instance = \"/bootId\", plugins = \"/plugins\" }";
    rewrite(
        &world,
        &[
            ("source = ", format!("source = {{ npm = \"app\", registry = \"{}\" }}", registry.url())),
            (
                "command = ",
                format!("command = [\"{}\", \"{{root}}/app.mjs\", \"{{port}}\"]", node().display()),
            ),
            ("probe = ", format!("probe = {{ ready = \"/\", {version} }}")),
        ],
    );
    Ok((world, registry))
}
