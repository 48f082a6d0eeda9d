//! What counts as verified, fact by fact.

mod cast;

use cast::{Flaw, REQUIRED};
use cutover_core::{Compared, Exchanges, FactName, PluginsTold, Reading, Seen, Verdict, judge};
use std::collections::BTreeSet;

fn expectation() -> cutover_core::Expectation {
    cast::expectation(&cast::installed(2, 2), &cast::instance(7))
}

#[test]
fn everything_as_expected_is_verified_of_that_process() {
    let expectation = expectation();
    let Verdict::Verified(evidence) = judge(&expectation, &cast::as_expected(&expectation)) else {
        panic!("not verified")
    };
    assert_eq!(*evidence.instance(), cast::instance(7));
    assert_eq!(evidence.facts().len(), 13);
}

#[test]
fn a_single_flaw_in_any_required_fact_is_never_verified() {
    let expectation = expectation();
    for fact in REQUIRED {
        for flaw in [Flaw::Wrong, Flaw::Missing, Flaw::NotApplicable] {
            let observations = cast::flawed(&expectation, fact, flaw);
            assert!(!cast::is_verified(&expectation, &observations), "{fact:?} {flaw:?}");
        }
    }
}

#[test]
fn a_required_fact_that_does_not_apply_is_missing() {
    let expectation = expectation();
    for name in REQUIRED {
        let verdict = judge(&expectation, &cast::flawed(&expectation, name, Flaw::NotApplicable));
        assert_eq!(cast::fact(&verdict, name).reading, Reading::Missing, "{name:?}");
        assert!(matches!(verdict, Verdict::Inconclusive(_)), "{name:?}: no evidence is no refutation");
    }
}

#[test]
fn a_fact_that_nothing_requires_may_not_apply_but_not_be_missing() {
    let mut expectation = expectation();
    expectation.required = BTreeSet::new();
    for name in REQUIRED {
        let absent = cast::flawed(&expectation, name, Flaw::NotApplicable);
        assert!(cast::is_verified(&expectation, &absent), "{name:?}");
        let missing = cast::flawed(&expectation, name, Flaw::Missing);
        assert!(!cast::is_verified(&expectation, &missing), "{name:?}: looked for and not to be had");
    }
}

#[test]
fn another_version_than_the_target_is_evidence_against_it() {
    let expectation = expectation();
    let verdict = judge(&expectation, &cast::flawed(&expectation, FactName::Version, Flaw::Wrong));
    assert!(matches!(verdict, Verdict::Refuted(_)), "different from before is not enough");
    assert!(verdict.shortfall().contains("expected 2.0, observed 0.9"));
}

#[test]
fn a_version_that_a_stranger_states_is_no_evidence() {
    let expectation = expectation();
    let mut observations = cast::flawed(&expectation, FactName::Version, Flaw::Wrong);
    observations.listeners = cast::flawed(&expectation, FactName::Port, Flaw::Wrong).listeners;
    assert!(matches!(judge(&expectation, &observations), Verdict::Inconclusive(_)));
}

#[test]
fn one_round_too_few_is_not_verified() {
    let expectation = expectation();
    let mut observations = cast::as_expected(&expectation);
    observations.streak = expectation.streak - 1;
    assert!(matches!(judge(&expectation, &observations), Verdict::Inconclusive(_)));
}

/// The judgement of everything as expected, with these exchanges and these answers of the service about itself.
fn traffic(compared: Compared, ready: Seen<bool>) -> (cutover_core::Fact, Verdict) {
    let expectation = expectation();
    let mut seen = cast::as_expected(&expectation);
    seen.traffic = Seen::Yes { value: compared, at_ms: 1, source: "front".into() };
    seen.ready = ready;
    let verdict = judge(&expectation, &seen);
    (cast::fact(&verdict, FactName::Traffic).clone(), verdict)
}

fn told(ready: bool) -> Seen<bool> {
    Seen::Yes { value: ready, at_ms: 1, source: "p".into() }
}

#[test]
fn a_client_cannot_roll_production_back() {
    let unanswered = || Seen::Missing { why: "no answer".into(), at_ms: 1, source: "p".into() };
    for answered in [0, 1, 49, 50, 51, 1000, u64::MAX] {
        for failed in [0, 1, answered / 2, answered, u64::MAX] {
            for before in [0, 49, 50, u64::MAX] {
                let now = Exchanges { answered, bad: failed, abnormal: failed };
                let before = Exchanges { answered: before, ..Exchanges::default() };
                let compared = Compared { before, now };
                let (fact, verdict) = traffic(compared, told(true));
                assert!(matches!(verdict, Verdict::Verified(_)), "{fact:?}");
                // An overload is a client's doing too: then something is missing, and nothing is evidence.
                let (fact, verdict) = traffic(compared, unanswered());
                assert!(matches!(verdict, Verdict::Inconclusive(_)), "{fact:?}");
            }
        }
    }
}

#[test]
fn worse_traffic_warns_and_refutes_a_service_that_says_itself_that_it_is_not_well() {
    let (fact, verdict) = traffic(cast::WORST, told(true));
    assert_eq!(fact.reading, Reading::Warns);
    assert!(matches!(verdict, Verdict::Verified(_)));
    assert!(fact.observed.contains("1000 bad") && fact.observed.contains("before: 1000"), "{fact:?}");
    let (fact, verdict) = traffic(cast::WORST, told(false));
    assert_eq!(fact.reading, Reading::Contradicts);
    assert!(matches!(verdict, Verdict::Refuted(_)));
    let well = Compared { now: cast::WORST.before, ..cast::WORST };
    let (fact, verdict) = traffic(well, told(false));
    assert_eq!(fact.reading, Reading::Holds);
    assert!(matches!(verdict, Verdict::Inconclusive(_)), "not ready alone is no evidence");
}

#[test]
fn few_exchanges_say_nothing_and_a_few_more_failures_are_no_worse() {
    let side = |answered, bad| Exchanges { answered, bad, abnormal: 0 };
    for (before, now, reading) in [
        (side(49, 0), side(1000, 1000), Reading::NotApplicable),
        (side(1000, 0), side(49, 49), Reading::NotApplicable),
        (side(50, 0), side(50, 3), Reading::Warns),
        (side(50, 0), side(50, 2), Reading::Holds),
        (side(100, 90), side(100, 95), Reading::Holds),
        (side(100, 90), side(100, 96), Reading::Warns),
        (side(1_000_000, 0), side(100, 5), Reading::Holds),
    ] {
        let (fact, _) = traffic(Compared { before, now }, told(true));
        assert_eq!(fact.reading, reading, "{before:?} {now:?}");
    }
}

/// What is read of a service that tells these plugins, where `chat@1` must run.
fn plugins_told(told: PluginsTold, running: &[&str]) -> (cutover_core::Fact, bool) {
    let expectation = cutover_core::Expectation { plugins_told: told, ..expectation() };
    let running = running.iter().map(|plugin| (*plugin).to_owned()).collect();
    let seen = cutover_core::Observations {
        plugins: Seen::Yes { value: running, at_ms: 1, source: "p".into() },
        ..cast::as_expected(&expectation)
    };
    let verdict = judge(&expectation, &seen);
    (cast::fact(&verdict, FactName::Plugins).clone(), matches!(verdict, Verdict::Verified(_)))
}

#[test]
fn a_plugin_told_without_a_version_is_no_proof_of_one() {
    for (running, reading, observed) in [
        (vec!["chat@1", "other"], Reading::Holds, "all of them, of 2 that run"),
        (vec!["chat"], Reading::Missing, "chat told without a version, of 1 that run"),
        (vec!["chat", "chat@2"], Reading::Missing, "chat told without a version, of 2 that run"),
        (vec!["chat@2"], Reading::NotYet, "not [\"chat@1\"], of 1 that run"),
        (vec![], Reading::NotYet, "not [\"chat@1\"], of 0 that run"),
    ] {
        let (fact, is_verified) = plugins_told(PluginsTold::Versions, &running);
        assert_eq!((fact.reading, fact.observed.as_str()), (reading, observed), "{running:?}");
        assert_eq!((fact.expected.as_str(), is_verified), ("chat@1", reading == Reading::Holds));
    }
}

#[test]
fn a_plugin_that_is_only_wanted_is_told_and_stands_in_nobody_s_way() {
    let also = ["chat@1; side@1, only wanted", "side@1, only wanted"];
    for (plugins, words) in [vec!["chat@1".to_owned()], vec![]].into_iter().zip(also) {
        let wanted = cutover_core::Expectation { plugins, wanted: vec!["side@1".into()], ..expectation() };
        for (running, reading, observed) in [
            (vec!["chat@1", "side@1"], Reading::Holds, "all of them, of 2 that run"),
            (vec!["chat@1", "side"], Reading::Warns, "not [\"side@1\"], only wanted, of 2 that run"),
            (vec!["chat@1"], Reading::Warns, "not [\"side@1\"], only wanted, of 1 that run"),
        ] {
            let running = running.into_iter().map(str::to_owned).collect();
            let plugins = Seen::Yes { value: running, at_ms: 1, source: "p".into() };
            let verdict =
                judge(&wanted, &cutover_core::Observations { plugins, ..cast::as_expected(&wanted) });
            let fact = cast::fact(&verdict, FactName::Plugins);
            assert_eq!((fact.reading, fact.observed.as_str()), (reading, observed));
            assert_eq!((fact.expected.as_str(), matches!(verdict, Verdict::Verified(_))), (words, true));
        }
    }
    // What must run is asked for all the same.
    let wanted = cutover_core::Expectation { wanted: vec!["side@1".into()], ..expectation() };
    let plugins = Seen::Yes { value: vec!["side@1".into()], at_ms: 1, source: "p".into() };
    let verdict = judge(&wanted, &cutover_core::Observations { plugins, ..cast::as_expected(&wanted) });
    assert_eq!(cast::fact(&verdict, FactName::Plugins).reading, Reading::NotYet);
    assert!(matches!(verdict, Verdict::Inconclusive(_)));
}

#[test]
fn that_no_plugin_is_asked_for_says_nothing_of_any() {
    let required = cast::REQUIRED.into_iter().filter(|name| *name != FactName::Plugins).collect();
    let none = cutover_core::Expectation { plugins: Vec::new(), required, ..expectation() };
    let chat = Seen::Yes { value: vec!["chat@1".to_owned()], at_ms: 1, source: "p".into() };
    let seen = cutover_core::Observations { plugins: chat, ..cast::as_expected(&none) };
    let verdict = judge(&none, &seen);
    let fact = cast::fact(&verdict, FactName::Plugins);
    assert_eq!(
        (fact.reading, fact.expected.as_str(), fact.observed.as_str()),
        (Reading::NotApplicable, "none in particular", "1 that run")
    );
    assert!(matches!(verdict, Verdict::Verified(_)));
    // A proof that is said to need them has none.
    let asked = cutover_core::Expectation { required: cast::REQUIRED.into(), ..none };
    assert!(matches!(judge(&asked, &seen), Verdict::Inconclusive(_)));
}

#[test]
fn where_only_ids_are_told_the_version_is_said_not_to_be() {
    for (running, reading) in [
        (vec!["chat"], Reading::Holds),
        (vec!["chat@1"], Reading::Holds),
        (vec!["chat@2"], Reading::NotYet),
        (vec!["chatter"], Reading::NotYet),
    ] {
        let (fact, is_verified) = plugins_told(PluginsTold::Ids, &running);
        assert_eq!((fact.reading, is_verified), (reading, reading == Reading::Holds), "{running:?}");
        assert_eq!(fact.expected, "chat (its version is not told)");
    }
}

#[test]
fn an_old_journal_is_judged_as_it_was_when_it_was_written() {
    let told = |text: &str| serde_json::from_str::<cutover_core::Expectation>(text).unwrap().plugins_told;
    let written = serde_json::to_string(&expectation()).unwrap();
    assert_eq!(told(&written), PluginsTold::Versions);
    let old = written.replace(",\"pluginsTold\":\"versions\"", "");
    assert_ne!(old, written);
    assert_eq!(told(&old), PluginsTold::Ids);
}
