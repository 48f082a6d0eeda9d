//! Files of `KEY=VALUE` lines, in which secrets lie beside the configuration.

use super::settings::ServiceSettings;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What keeps a service's `env_file` from being read, with its key; `None` if it is good, is not named, or is not for this
/// account to read: whoever serves sees it.
#[must_use]
pub fn unreadable(service: &ServiceSettings) -> Option<String> {
    let path = service.env_file.as_deref()?;
    let error = variables(path).err()?;
    let is_denied =
        error.downcast_ref::<io::Error>().map(io::Error::kind) == Some(io::ErrorKind::PermissionDenied);
    (!is_denied).then(|| format!("service.{}.env_file: {error:#}", service.name))
}

/// The variables that a file names.
///
/// # Errors
/// If it cannot be read, or as [`variables_of`].
pub(crate) fn variables(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    variables_of(path, &text)
}

/// The variables that the text of a file names. Empty lines and those that begin with `#` are left out, and quotes around a
/// value.
///
/// # Errors
/// If a line is something else.
pub(crate) fn variables_of(path: &Path, text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let (name, value) = line
                .split_once('=')
                .with_context(|| format!("{}: line {number} is not KEY=VALUE", path.display()))?;
            Ok((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_file_that_is_missing_or_says_something_else_is_told_with_its_line_and_without_its_text() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("web.env");
        let text = format!(
            "[service.web]\nsource = {{ directory = \"/srv/releases\" }}\ncommand = [\"{{root}}/server\", \"{{port}}\"]\n\
             listen = \"127.0.0.1:8080\"\nprobe = {{ ready = \"/readyz\", version = {{ http = \"/version\" }} }}\n\
             env_file = \"{}\"\n",
            path.display()
        );
        let told = || unreadable(&parse(Path::new("cutover.toml"), &text).expect("valid").services["web"]);
        let missing = told().expect("it is missing");
        assert!(
            missing.starts_with("service.web.env_file: ") && missing.contains("No such file"),
            "{missing}"
        );
        std::fs::write(&path, "# a token\n\nTOKEN = \"secret\"\nhunter2\n").expect("written");
        let odd = told().expect("a line is odd");
        assert!(odd.contains("line 4 is not KEY=VALUE") && !odd.contains("hunter2"), "{odd}");
        std::fs::write(&path, "# a token\n\nTOKEN = \"secret\"\n").expect("written");
        assert_eq!(told(), None);
        assert_eq!(variables(&path).expect("good"), BTreeMap::from([("TOKEN".into(), "secret".into())]));
    }
}
