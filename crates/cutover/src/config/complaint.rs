//! What is wrong with a configuration, collected: a person is told of all at once.

/// A value that cannot be used, and what to write instead.
pub(super) struct Complaint {
    pub key: String,
    pub problem: String,
}

impl Complaint {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// What was right; what was wrong joins the complaints.
pub(super) fn keep<T>(result: Result<T, Complaint>, complaints: &mut Vec<Complaint>) -> Option<T> {
    result.map_err(|complaint| complaints.push(complaint)).ok()
}
