//! What a command line says that a process runs.

/// Options of interpreters that take code in place of a script.
const CODE: [&str; 5] = ["-e", "--eval", "-p", "--print", "-pe"];

/// Options of interpreters that take the next word.
const WITH_VALUE: [&str; 8] =
    ["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "-m"];

/// The script in an interpreter's command line.
#[must_use]
pub fn script(words: &[String]) -> Option<&str> {
    let mut rest = words.iter().skip(1).map(String::as_str);
    while let Some(word) = rest.next() {
        if CODE.contains(&word) {
            return None;
        }
        if WITH_VALUE.contains(&word) {
            rest.next();
        } else if !word.is_empty() && !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_script_is_what_follows_the_interpreters_own_options() {
        let script = |line: &str| {
            let words: Vec<String> = line.split(' ').map(Into::into).collect();
            super::script(&words).map(str::to_owned)
        };
        assert_eq!(script("node --require ./a.js --trace-gc b.js c.js").as_deref(), Some("b.js"));
        assert_eq!(script("node -e code /store/current/core/dist/index.js"), None);
        assert_eq!(script("gate-daemon"), None);
    }
}
