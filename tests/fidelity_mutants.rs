//! Each bug that is put into the model on purpose is found by the cases of its domain, and the case
//! that finds it agrees without it.

#![cfg(target_os = "linux")]

#[path = "common/namespace.rs"]
mod namespace;

use kubesim::fidelity::{Mismatch, compare, mutants};

/// As many cases as a bug may take to be found.
const CASES: u64 = 20_000;

#[test]
fn every_mutant_is_found() {
    // What is missing is said there, or fails the test where nothing may be.
    namespace::in_namespace(|| {
        for (_, name, domain) in mutants::ALL {
            mutants::put_in(name).expect("a mutant");
            let outcome = compare(domain, 1, 0..CASES, 1).expect("a machine that makes namespaces");
            let [Mismatch { index, story, .. }] = &outcome.mismatches[..] else {
                panic!("{name} is not found by {CASES} cases of {domain:?}");
            };
            println!("{name}: case {index} of {domain:?}{story}");
            mutants::take_out();
            let alone = *index..*index + 1;
            let sound = compare(domain, 1, alone, 1).expect("a machine that makes namespaces");
            assert_eq!(sound.agreed, 1, "case {index} of {domain:?} differs without {name}");
        }
    });
}
