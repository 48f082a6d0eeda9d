//! Where a test may end this process, or make one operation fail, by the environment. Compiled out without the cargo
//! feature `failpoints`; knows nothing of what it interrupts.
//!
//! `CUTOVER_CRASH_POINT` holds `name` (the first pass over that point), `name@3` (its third pass) or `@17` (the
//! seventeenth pass over any point). `CUTOVER_FAIL_POINT` holds the name of one operation that then reports failure.

/// Aborts the process here if `CUTOVER_CRASH_POINT` names this pass. Nothing without the feature `failpoints`.
#[macro_export]
macro_rules! crash_point {
    ($name:expr) => {{
        #[cfg(feature = "failpoints")]
        $crate::crash_point::pass($name);
    }};
}

/// Is the operation of this name told to fail? Always `false` without the feature `failpoints`.
#[macro_export]
macro_rules! fail_point {
    ($name:expr) => {{
        #[cfg(feature = "failpoints")]
        {
            $crate::crash_point::is_told_to_fail($name)
        }
        #[cfg(not(feature = "failpoints"))]
        {
            false
        }
    }};
}

/// Counts a pass over the point `name`, and aborts the process if it is the one that was asked for.
#[cfg(feature = "failpoints")]
pub fn pass(name: &str) {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    static PASSES: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);

    let Some(wanted) = std::env::var_os("CUTOVER_CRASH_POINT") else { return };
    let wanted = wanted.to_string_lossy();
    let (wanted_name, wanted_pass) = match wanted.rsplit_once('@') {
        Some((name, pass)) => (name, pass.parse().unwrap_or(u64::MAX)),
        None => (wanted.as_ref(), 1),
    };
    let mut passes = PASSES.lock().unwrap_or_else(PoisonError::into_inner);
    let passes = passes.get_or_insert_default();
    let mut count = |key: &str| {
        let seen = passes.entry(key.to_owned()).or_insert(0);
        *seen += 1;
        *seen
    };
    let (of_name, of_any) = (count(name), count(""));
    let is_here = if wanted_name.is_empty() {
        of_any == wanted_pass
    } else {
        name == wanted_name && of_name == wanted_pass
    };
    if is_here {
        eprintln!("crash point {name} (pass {of_any})");
        std::process::abort();
    }
}

/// Does `CUTOVER_FAIL_POINT` name this operation?
#[cfg(feature = "failpoints")]
#[must_use]
pub fn is_told_to_fail(name: &str) -> bool {
    std::env::var_os("CUTOVER_FAIL_POINT").is_some_and(|wanted| wanted.to_str() == Some(name))
}
