//! The scenario language as its users meet it: what is shipped parses, what is wrong is explained.

use kubesim_sim::scenario::Scenario;
use std::path::Path;

/// Every scenario of the repository.
fn shipped() -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir("scenarios")
        .expect("tests run in the repository")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}

fn load(path: &Path, profile: Option<&str>) -> Scenario {
    Scenario::load(path, &[], profile).unwrap_or_else(|wrong| panic!("\n{wrong}"))
}

#[test]
fn every_shipped_scenario_parses_under_each_of_its_profiles() {
    let files = shipped();
    assert!(files.len() >= 7);
    for path in files {
        let scenario = load(&path, None);
        assert_eq!(Some(scenario.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
        assert!(!scenario.expectations.is_empty(), "{path:?} expects nothing");
        for profile in &scenario.profiles {
            assert_eq!(load(&path, Some(profile)).profile.map(|p| p.name).as_ref(), Some(profile));
        }
    }
}
