//! A report for eyes outside of this machine: the same facts and words, without what quotes logs, and without secrets.

use super::acts::LOG_ENDS;
use crate::preflight::Secrets;
use cutover_core::{FactName, Fault, Report};

/// In place of what only this machine tells.
const AT_HOME: &str = "told by `show` on that machine";

/// The report without log lines and secret values. What went wrong is told by its stable word; the whole story quotes logs.
pub(super) fn outward(mut report: Report, secrets: &Secrets) -> Report {
    report.causes.iter_mut().for_each(|cause| shorten(&mut cause.fault));
    report.origin.iter_mut().for_each(shorten);
    report.steps.iter_mut().for_each(|step| step.outcome = None);
    for fact in &mut report.facts {
        fact.observed = match fact.name {
            FactName::Tripwires if !fact.observed.is_empty() => AT_HOME.to_owned(),
            _ => secrets.hidden_in(&fact.observed),
        };
    }
    for finding in &mut report.findings {
        finding.text = secrets.hidden_in(without_log(&finding.text));
        finding.advice = finding.advice.as_deref().map(|advice| secrets.hidden_in(advice));
    }
    // Who else is told is nobody else's affair.
    report.notices.clear();
    report
}

/// What is said before a log is quoted.
fn without_log(text: &str) -> &str {
    text.split_once(LOG_ENDS).map_or(text, |(before, _)| before)
}

fn shorten(fault: &mut Fault) {
    fault.detail = AT_HOME.to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::{Act, Cause, Fact, Finding, Level, Reading, State, report};
    use std::collections::BTreeMap;

    #[test]
    fn no_log_line_and_no_secret_leaves_the_machine() {
        let fault =
            || Fault { code: "exited".into(), detail: "its log says: user ann asked sesame-9".into() };
        let fact = |name, observed: &str| Fact {
            name,
            expected: "none".into(),
            observed: observed.into(),
            reading: Reading::Contradicts,
            at: Some(1),
            source: "log".into(),
        };
        let mut whole = report("web", &State::new(), None);
        whole.causes = vec![Cause { act: Act::Prove, fault: fault() }];
        whole.origin = Some(fault());
        whole.facts = vec![
            fact(FactName::Tripwires, "Cannot find module of ann"),
            fact(FactName::Version, "refused with sesame-9"),
        ];
        let quotes = format!("it ended by itself: Code(78){LOG_ENDS}user ann asked");
        whole.findings = vec![
            Finding::new(Level::Warn, "x", "sesame-9 is set").advised("unset sesame-9"),
            Finding::new(Level::Warn, "y", quotes),
        ];
        let env = BTreeMap::from([("TOKEN".to_owned(), "sesame-9".to_owned())]);
        let told = outward(whole, &Secrets::of(&env, std::iter::empty()));
        let text = serde_json::to_string(&told).unwrap();
        for kept_back in ["ann", "sesame", "module"] {
            assert!(!text.contains(kept_back), "{kept_back}: {text}");
        }
        assert_eq!(told.causes[0].fault.code, "exited");
        assert_eq!(told.facts[1].observed, "refused with [hidden]");
    }
}
