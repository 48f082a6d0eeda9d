//! The page's files, embedded, and the headers that every answer over TCP has. What the page shows it asks for by the same
//! methods as everybody; nothing of this host is in these files.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::routing::get;

/// Path, kind, content.
type File = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [File; 11] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/style.css", CSS, include_str!("page/style.css")),
    ("/page/app.js", SCRIPT, include_str!("page/app.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/line.js", SCRIPT, include_str!("page/line.js")),
    ("/page/link.js", SCRIPT, include_str!("page/link.js")),
    ("/page/login.js", SCRIPT, include_str!("page/login.js")),
    ("/page/orders.js", SCRIPT, include_str!("page/orders.js")),
    ("/page/run.js", SCRIPT, include_str!("page/run.js")),
    ("/page/service.js", SCRIPT, include_str!("page/service.js")),
    ("/page/words.js", SCRIPT, include_str!("page/words.js")),
];

/// Scripts and styles are files of this origin, nothing is asked elsewhere, nobody frames the page, and no text becomes
/// markup or script by accident.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Whether this path is one of the page's files.
pub(super) fn is_file(path: &str) -> bool {
    FILES.iter().any(|(name, ..)| *name == path)
}

/// The routes of the files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { ([(header::CONTENT_TYPE, kind)], content) }))
    })
}

/// Sets what every answer over TCP has.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of all files together.
    const SIZE_MAX: usize = 60_000;

    #[test]
    fn the_page_is_small_and_every_file_that_it_names_is_there() {
        let size: usize = FILES.iter().map(|(.., content)| content.len()).sum();
        assert!(size <= SIZE_MAX, "{size} bytes");
        for (path, kind, content) in FILES {
            for line in content.lines().filter(|line| kind == SCRIPT && line.starts_with("import ")) {
                let name = line.rsplit('"').nth(1).unwrap_or_default();
                let named = name.replacen("./", "/page/", 1);
                assert!(is_file(&named), "{path} imports {name}");
            }
        }
        let index = FILES[0].2;
        for named in index.split(['"', '\'']).filter(|word| word.starts_with("/page/")) {
            assert!(is_file(named), "{named}");
        }
    }

    #[test]
    fn no_file_makes_markup_of_text_or_asks_anybody_else() {
        for (path, _, content) in FILES {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
                "//cdn",
            ] {
                assert!(!content.contains(word), "{path}: {word}");
            }
            let addresses = content.match_indices("http").filter(|(at, _)| content[*at..].contains("://"));
            for (at, _) in addresses {
                let address: String = content[at..].chars().take_while(|c| !"\"'` ".contains(*c)).collect();
                let is_name = address == "http://www.w3.org/2000/svg";
                assert!(is_name || !address.contains("://"), "{path}: {address}");
            }
        }
        assert!(!FILES[0].2.contains("<style") && !FILES[0].2.contains("<script>"));
    }
}
