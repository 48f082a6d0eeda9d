//! The page of a release: written into the release directory, opened from there when it is asked for.
//!
//! Script and style have hashed names, so a browser tab of an older version notices that it is one.

use crate::release::{Error, Release, hashed_name, write_file};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName};
use std::path::Path;

/// The page's file below `page/`.
pub(crate) const INDEX: &str = "index.html";
/// The directory of hashed files below `page/`.
pub(crate) const ASSETS: &str = "assets";
/// The page's content type.
pub(crate) const HTML: &str = "text/html; charset=utf-8";
/// For what may change with the next version.
pub(crate) const NO_CACHE: (HeaderName, &str) = (CACHE_CONTROL, "no-cache");
/// For what has its content's hash in its name.
pub(crate) const IMMUTABLE: (HeaderName, &str) = (CACHE_CONTROL, "public, max-age=31536000, immutable");
/// Nothing but the page's own files; WebSockets are named because not every browser counts them as `self`.
pub(crate) const POLICY: (HeaderName, &str) = (
    CONTENT_SECURITY_POLICY,
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const INDEX_TEMPLATE: &str = include_str!("page/index.html");
const SCRIPT_TEMPLATE: &str = include_str!("page/app.js");
const STYLE_TEMPLATE: &str = include_str!("page/style.css");

/// Writes page and assets of one release; answers the assets' names.
pub(crate) fn write(dir: &Path, release: &Release) -> Result<Vec<String>, Error> {
    let version = escaped(&release.version);
    let seed = format!("{} {}", release.version, release.build).replace("*/", "");
    let script = format!("/* {seed} */\n{SCRIPT_TEMPLATE}");
    let style = format!("/* {seed} */\n{}", STYLE_TEMPLATE.replace("{{hue}}", &hue(&seed).to_string()));
    let script_name = hashed_name("app", script.as_bytes(), "js");
    let style_name = hashed_name("style", style.as_bytes(), "css");
    let index = INDEX_TEMPLATE
        .replace("{{version}}", &version)
        .replace("{{build}}", &escaped(&release.build))
        .replace("{{script}}", &script_name)
        .replace("{{style}}", &style_name);
    let page = dir.join("page");
    write_file(&page.join(INDEX), index.as_bytes())?;
    write_file(&page.join(ASSETS).join(&script_name), script.as_bytes())?;
    write_file(&page.join(ASSETS).join(&style_name), style.as_bytes())?;
    Ok(vec![script_name, style_name])
}

/// The content type of a file in `assets`.
pub(crate) fn content_type(name: &str) -> &'static str {
    if name.ends_with(".js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" }
}

/// A colour of its own for each release, so that a change can be seen across the room.
fn hue(seed: &str) -> u32 {
    seed.bytes().fold(17_u32, |hue, byte| hue.wrapping_mul(31).wrapping_add(u32::from(byte))) % 360
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_cannot_break_out_of_the_page() {
        let area = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(area.path().join("page/assets")).unwrap();
        let hostile = Release { build: "*/alert(1)/*".into(), ..Release::new("<script>\"&") };
        let assets = write(area.path(), &hostile).unwrap();
        let index = std::fs::read_to_string(area.path().join("page/index.html")).unwrap();
        assert!(index.contains("&lt;script&gt;&quot;&amp;") && !index.contains("<script>\""));
        assert!(!index.contains("{{"), "every place of the template is filled");
        for asset in assets {
            let content = std::fs::read_to_string(area.path().join("page/assets").join(&asset)).unwrap();
            assert!(
                index.contains(&asset) && content.starts_with("/* <script>\"& alert(1)/* */\n"),
                "{content}"
            );
        }
    }
}
